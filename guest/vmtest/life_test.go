// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"testing"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
	"hwvtpm/qmp"
)

const kept = "kept over all"

// What a guest's root can do without resetting the machine must not reset PCRs:
// else measurements could be forged.
func TestPCRsSurviveWhatTheGuestDoes(t *testing.T) {
	m := newBed(t).powerOn(variant{"plain", false})
	device := agent.BindArgs{Device: m.awaitTPM().Name, Driver: "tpm_virtio"}
	want := m.extend("measured once")

	for range 3 {
		m.must("unbind", m.guest.Agent.Call(m.ctx, agent.OpDriverUnbind, device, nil))
		m.must("bind", m.guest.Agent.Call(m.ctx, agent.OpDriverBind, device, nil))
		m.awaitTPM()
		m.wantPCR("unbind and bind", want)
	}

	module := agent.DriverArgs{Name: "tpm_virtio", Path: m.sh("cat /etc/hwvtpm/modules")}
	m.must("rmmod", m.guest.Agent.Call(m.ctx, agent.OpDriverUnload, module, nil))
	m.must("insmod", m.guest.Agent.Call(m.ctx, agent.OpDriverLoad, module, nil))
	m.awaitTPM()
	m.wantPCR("unloading and loading the driver", want)

	m.must("stop", m.guest.QMP.Stop(m.ctx))
	m.must("cont", m.guest.QMP.Cont(m.ctx))
	m.wantPCR("stop and cont", want)
	m.suspend()
	m.wantPCR("suspend to RAM", want)

	want = m.extend("and once more")
	m.wantPCR("another measurement", want)
}

// suspend puts the guest into S3 and wakes it up.
func (m *machine) suspend() {
	m.Helper()
	events := m.guest.QMP.Subscribe("SUSPEND", "WAKEUP")
	defer events.Close()
	next := func(name string) {
		m.Helper()
		e, err := events.Next(m.ctx)
		m.must("waiting for "+name, err)
		if e.Event != name {
			m.Fatalf("event %s, want %s", e.Event, name)
		}
	}
	slept := make(chan error, 1)
	go func() {
		_, err := m.guest.Agent.Run(m.ctx, "gosh", "-c", "echo mem > /sys/power/state")
		slept <- err
	}()
	next("SUSPEND")
	m.must("system_wakeup", m.guest.QMP.Execute(m.ctx, qmp.Command{Execute: "system_wakeup"}, nil))
	next("WAKEUP")
	m.must("suspend", <-slept)
}

// A kexec replaces the kernel and what it measured, but not the machine: PCRs
// stay, and so the next kernel cannot hide the one that started it. A reset of
// the machine afterwards is as good as any.
func TestPCRsSurviveKexec(t *testing.T) {
	b := newBed(t)
	m := &machine{bed: b, variant: variant{"both", true}, monitor: b.MonitorPath()}
	m.startBackend()
	m.boot(m.kexecOptions())
	m.awaitTPM()
	m.define(uint16(len(kept)))
	m.writeNV(kept)
	want := m.extend("by the first kernel")

	for range 2 {
		m.kexec()
		m.wantPCR("kexec", want)
		m.wantNV("kexec", kept)
		want = m.extend("by the next kernel")
	}

	m.reset()
	m.awaitTPM()
	m.wantPCR("system_reset", digest{})
	m.wantNV("system_reset", kept)
}

// kexecOptions are of a machine that has what kexec needs.
func (m *machine) kexecOptions() lab.VMOptions {
	return lab.VMOptions{
		TPM:       m.tpm(),
		MemoryMiB: 512,             // for two of everything
		Append:    "retain_initrd", // readable in the guest
		Extra: []string{
			"-drive", "if=none,id=kernel,format=raw,readonly=on,file=" + m.Env.Kernel("6.12"),
			"-device", "nvme,drive=kernel,serial=kernel",
		},
	}
}

// kexec starts the kernel on the guest's disk with the initramfs of this boot.
func (m *machine) kexec() {
	m.Helper()
	before, err := m.guest.Agent.WaitHello(m.ctx)
	m.must("the guest", err)
	m.sh("cat /dev/nvme0n1 > /vmlinuz")
	args := agent.KexecArgs{Kernel: "/vmlinuz", Initramfs: "/sys/firmware/initrd"}
	after, err := m.guest.Agent.Kexec(m.ctx, args)
	m.must("kexec", err)
	if after.BootID == before.BootID {
		m.Fatal("the same kernel goes on")
	}
	m.awaitTPM()
}

// A reset of the machine resets PCRs and keeps NV; so does a loss of power, and a
// machine that is set up anew on the same state.
func TestResetsAndPowerCycles(t *testing.T) {
	b := newBed(t)
	m := b.powerOn(variant{"framed", true})
	m.define(uint16(len(kept)))
	m.writeNV(kept)

	want := m.extend("first life")
	m.reset()
	m.wantPCR("system_reset", digest{})
	m.wantNV("system_reset", kept)
	if m.readPCR() == want {
		t.Fatal("the PCR did not change at all")
	}

	m.extend("second life")
	_, err := m.guest.Agent.Reboot(m.ctx)
	m.must("reboot", err)
	m.wantPCR("reboot", digest{})
	m.wantNV("reboot", kept)

	m.extend("third life")
	m.powerOff()
	m = b.powerOn(variant{"both", false})
	m.wantPCR("power off and on", digest{})
	m.wantNV("power off and on", kept)

	// The backend lives on when QEMU dies, and serves the next QEMU.
	m.extend("fourth life")
	m.guest.Kill()
	m.bootAgain()
	m.wantPCR("QEMU's death", digest{})
	m.wantNV("QEMU's death", kept)
}
