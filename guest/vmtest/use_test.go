// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
	"hwvtpm/qmp"
)

// One machine takes the device in each of its shapes by hot-plug: the guest's
// kernel, tpm2-tools and go-tpm must all get along with it.
func TestEveryVariantByHotPlug(t *testing.T) {
	b := newBed(t)
	m := &machine{bed: b, monitor: b.MonitorPath()}
	m.boot(lab.VMOptions{})
	for _, layout := range []string{"plain", "framed", "both"} {
		for _, packed := range []bool{false, true} {
			v := variant{layout, packed}
			t.Run(v.String(), func(t *testing.T) {
				m := &machine{bed: &bed{Rig: b.Rig, T: t, ctx: b.ctx}, variant: v, monitor: m.monitor, guest: m.guest}
				m.startBackend()
				m.plug()
				m.checkFeatures(m.awaitTPM())
				m.use()
				m.unplug()
				m.must("ending the backend", m.backend.Close())
				m.must("the backend's end", m.backend.Wait(m.ctx))
			})
		}
	}
}

func (m *machine) plug() {
	m.Helper()
	m.must("chardev-add", m.guest.QMP.ChardevAdd(m.ctx, lab.ChardevID, m.backend.Socket))
	args := m.tpm().Spec().Device
	args["id"], args["chardev"] = lab.DeviceID, lab.ChardevID
	m.must("device_add", m.guest.QMP.DeviceAdd(m.ctx, args))
}

func (m *machine) unplug() {
	m.Helper()
	m.must("unplugging", m.guest.QMP.Unplug(m.ctx, lab.DeviceID))
	// QEMU lets go of the character device a moment after the device.
	for {
		err := m.guest.QMP.ChardevRemove(m.ctx, lab.ChardevID)
		if err == nil || m.ctx.Err() != nil || !strings.Contains(err.Error(), "in use") && !strings.Contains(err.Error(), "busy") {
			m.must("chardev-remove", err)
			return
		}
	}
}

// checkFeatures compares what the guest's driver negotiated with the variant.
func (m *machine) checkFeatures(d agent.VirtioDevice) {
	m.Helper()
	bit := func(n int) bool { return len(d.Features) > n && d.Features[n] == '1' }
	if got, want := bit(bitFramed), m.variant.layout != "plain"; got != want {
		m.Errorf("framed layout negotiated: %v, want %v", got, want)
	}
	if got, want := bit(bitPacked), m.variant.packed; got != want {
		m.Errorf("packed ring negotiated: %v, want %v", got, want)
	}
}

// use goes over the TPM by each way that a guest has.
func (m *machine) use() {
	m.Helper()
	var info agent.TPMInfo // go-tpm on /dev/tpmrm0
	m.must("capabilities", m.guest.Agent.Call(m.ctx, agent.OpTPMInfo, agent.TPMArgs{}, &info))
	if info.Family != "2.0" {
		m.Errorf("family is %q, want 2.0", info.Family)
	}
	if got := m.sh("tpm2_getrandom --hex 32"); len(got) != 64 { // tpm2-tools
		m.Errorf("tpm2_getrandom --hex 32 printed %q", got)
	}
	version := m.sh("cat /sys/class/tpm/tpm0/tpm_version_major") // the kernel
	if version != "2" {
		m.Errorf("the kernel says version %q, want 2", version)
	}
	m.wantPCR("extend", m.extend("variant "+m.variant.String()))
	m.checkRaw()
}

// checkRaw sends raw commands, of which the bad ones must be answered by the
// TPM's own words and do no harm.
func (m *machine) checkRaw() {
	m.Helper()
	const (
		sessionsNone = 0x8001
		getRandom    = 0x17b
		rcCode       = 0x143 // TPM_RC_COMMAND_CODE
		rcSize       = 0x95  // TPM_RC_SIZE: bytes behind the last parameter
	)
	command := func(size uint32, code uint32, rest ...byte) []byte {
		c := binary.BigEndian.AppendUint16(nil, sessionsNone)
		c = binary.BigEndian.AppendUint32(c, size)
		return append(binary.BigEndian.AppendUint32(c, code), rest...)
	}
	for _, tc := range []struct {
		what    string
		command []byte
		rc      uint32
		size    int
	}{
		{"GetRandom of 8 bytes", command(12, getRandom, 0, 8), 0, 20},
		{"an unknown command", command(10, 0x20000fff), rcCode, 10},
		{"the longest command, all zeros behind the header", append(command(4096, getRandom), make([]byte, 4086)...), rcSize, 10},
	} {
		var d agent.Data
		args := agent.RawArgs{TPMArgs: agent.TPMArgs{Device: "/dev/tpm0"}, Command: tc.command}
		m.must(tc.what, m.guest.Agent.Call(m.ctx, agent.OpTPMRaw, args, &d))
		if len(d.Data) != tc.size || binary.BigEndian.Uint32(d.Data[6:]) != tc.rc {
			m.Errorf("%s: answer % x, want %d bytes with code %#x", tc.what, d.Data, tc.size, tc.rc)
		}
	}
}

// The same harness and checks hold for swtpm behind QEMU's own devices, so what
// they say about this project's device means something.
func TestPeersOnTheSameHarness(t *testing.T) {
	for _, model := range []string{"tpm-crb", "tpm-tis"} {
		t.Run(model, func(t *testing.T) {
			b := newBed(t)
			swtpm, err := b.StartSwtpm(b.ctx, "")
			b.must("starting swtpm", err)
			m := &machine{bed: b}
			m.boot(lab.VMOptions{TPM: lab.EmulatorTPM{Swtpm: swtpm, Model: model}})
			m.wantPCR("extend", m.extend("peer"))
			m.reset()
			m.wantPCR("a reset", digest{})
		})
	}
}

// A machine that does not come up loses its power, which a swtpm outlives: if it were
// ended in order, QEMU would end swtpm, too, and no other could start on it.
func TestSwtpmOutlivesABadBoot(t *testing.T) {
	b := newBed(t)
	swtpm, err := b.StartSwtpm(b.ctx, "")
	b.must("starting swtpm", err)
	tpm := lab.EmulatorTPM{Swtpm: swtpm, Model: "tpm-crb"}
	if _, err := b.Boot(b.ctx, lab.VMOptions{TPM: tpm, Append: "rdinit=/none"}); err == nil || !strings.Contains(err.Error(), "kernel panicked") {
		t.Errorf("Boot() of a kernel without an init = %v, want its panic", err)
	}
	m := &machine{bed: b}
	m.boot(lab.VMOptions{TPM: tpm})
	m.wantPCR("extend", m.extend("after all"))
}

// reset resets the machine through QEMU's monitor and waits for its next boot.
func (m *machine) reset() {
	m.Helper()
	before, err := m.guest.Agent.WaitHello(m.ctx)
	m.must("the guest", err)
	m.must("system_reset", m.guest.QMP.Execute(m.ctx, qmp.Command{Execute: "system_reset"}, nil))
	_, err = m.guest.Agent.WaitBoot(m.ctx, before)
	m.must("the boot after the reset", err)
}

// The device works with a driver that knows it on an older kernel as well.
func TestOlderKernel(t *testing.T) {
	b := newBed(t)
	m := &machine{bed: b, variant: variant{"both", true}, monitor: b.MonitorPath()}
	image := b.imageFor("6.1")
	m.startBackend()
	m.boot(lab.VMOptions{Kernel: "6.1", Image: image, TPM: m.tpm()})
	if !strings.HasPrefix(m.guest.Hello.Kernel, "6.1.") {
		t.Fatalf("kernel is %s", m.guest.Hello.Kernel)
	}
	m.checkFeatures(m.awaitTPM())
	m.use()
}

// Both kernels' compilers must have nothing to say about the driver.
func TestDriverBuildsWithoutWarnings(t *testing.T) {
	b := newBed(t)
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			out, err := b.buildDriver(series, fmt.Sprintf("%s/tpm_virtio.ko", t.TempDir()))
			if err != nil {
				t.Errorf("build: %v\n%s", err, out)
			}
			if out = bytes.TrimSpace(out); len(out) > 0 {
				t.Errorf("the build says:\n%s", out)
			}
		})
	}
}
