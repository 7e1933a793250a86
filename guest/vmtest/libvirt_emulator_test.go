// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/guest/lab"
)

// emulatorXML is what people have in their domains for swtpm.
const emulatorXML = `<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>`

// virt is a machine that libvirt runs.
type virt struct {
	*machine
	libvirt *lab.Libvirt
	domain  lab.Domain
}

// startVirt starts a libvirtd that finds what is in the folder path first, and
// defines a domain with the TPM.
func (b *bed) startVirt(path, settings, tpm string) *virt {
	b.Helper()
	v := &virt{machine: &machine{bed: b}, domain: lab.Domain{Name: "vm", UUID: "5b1f6a2e-0d53-4f0e-9d6b-6f2a1b7d8c90", TPM: tpm}}
	var err error
	v.libvirt, err = b.StartLibvirt(b.ctx, lab.LibvirtOptions{Path: path, Files: map[string]string{"hwvtpm/swtpm.conf": settings}})
	b.must("starting libvirtd", err)
	b.must("define", v.libvirt.Define(b.ctx, v.domain))
	b.Cleanup(func() {
		if b.Failed() {
			b.Logf("logs of swtpm:\n%s", v.in("cat /var/log/swtpm/libvirt/qemu/* 2>&1 || true"))
		}
		v.hangUp()
	})
	return v
}

// virsh runs a command of virsh on the domain.
func (v *virt) virsh(command string, more ...string) string {
	v.Helper()
	begin := time.Now()
	out, err := v.libvirt.Virsh(v.ctx, append([]string{command, v.domain.Name}, more...)...)
	v.must("virsh "+command, err)
	v.Logf("virsh %s: %.1f s", command, time.Since(begin).Seconds())
	return out
}

// in runs a line of shell where libvirtd is.
func (v *virt) in(line string) string {
	v.Helper()
	out, err := v.libvirt.Run(context.Background(), "sh", "-c", line)
	v.must(line, err)
	return out
}

// meet waits for the guest of a machine that starts.
func (v *virt) meet() {
	v.Helper()
	v.call()
	(&emulated{machine: v.machine}).awaitDriver()
}

// call connects to the guest's agent.
func (v *virt) call() {
	v.Helper()
	v.hangUp()
	client, err := v.libvirt.Agent(v.ctx, v.domain)
	v.must("the guest's agent", err)
	v.guest = &lab.Guest{Agent: client}
}

func (v *virt) hangUp() {
	if v.guest != nil {
		v.guest.Agent.Close()
		v.guest = nil
	}
}

// compat makes a folder with the programs that take swtpm's place.
func (b *bed) compat() string {
	b.Helper()
	dir := filepath.Join(b.Dir(), "compat")
	b.must("folder", os.Mkdir(dir, 0o755))
	for _, name := range []string{"hwvtpm-swtpm", "hwvtpm-engine"} {
		b.must("copy", exec.CommandContext(b.ctx, "install", "-m", "0755", b.Env.Program(name), dir).Run())
	}
	for _, name := range []string{"swtpm", "swtpm_setup", "swtpm_ioctl"} {
		b.must("link", os.Symlink("hwvtpm-swtpm", filepath.Join(dir, name)))
	}
	return dir
}

// live takes a machine through its life: the guest uses the TPM, a save keeps all
// of it, an end clears its PCRs, and NV outlives everything.
func (v *virt) live() {
	v.Helper()
	v.virsh("start")
	v.meet()
	v.wantPCR("the first start", digest{})
	if got := v.sh("tpm2_getrandom --hex 32"); len(got) != 64 {
		v.Errorf("tpm2_getrandom --hex 32 printed %q", got)
	}
	v.define(uint16(len(kept)))
	v.writeNV(kept)
	want := v.extend("before a save")

	v.virsh("managedsave")
	v.hangUp()
	v.virsh("start")
	v.call()
	v.wantPCR("managedsave and start", want)
	v.wantNV("managedsave and start", kept)

	v.virsh("destroy")
	v.virsh("start")
	v.meet()
	v.wantPCR("destroy and start", digest{})
	v.wantNV("destroy and start", kept)
	v.virsh("destroy")
	v.hangUp()
}

// checkReset has libvirt reset the machine, and looks for what that does to the
// TPM in its log.
func (v *virt) checkReset() {
	v.Helper()
	const count = "grep -c 'the TPM is reset' /var/log/swtpm/libvirt/qemu/vm-swtpm.log || true"
	v.virsh("start")
	v.meet()
	before := v.in(count)
	v.virsh("reset")
	limit := time.Now().Add(v.Env.Patience(20 * time.Second))
	for v.in(count) == before {
		if time.Now().After(limit) {
			v.Fatal("virsh reset does not reset the TPM")
		}
		time.Sleep(100 * time.Millisecond)
	}
	v.virsh("destroy")
	v.hangUp()
}

const stateDir = "/var/lib/libvirt/swtpm/5b1f6a2e-0d53-4f0e-9d6b-6f2a1b7d8c90/tpm2"

// libvirt's emulator backend starts hwvtpm-swtpm instead of swtpm, as user tss, and
// its TPM is a slot of coprocd's card.
func TestLibvirtDropInOnCoprocd(t *testing.T) {
	b := newBed(t)
	tss, err := user.Lookup("tss")
	b.must("swtpm's user", err)
	card, err := b.StartCoprocd(b.ctx, "--socket-mode", "0666", "--admin-uid", tss.Uid)
	b.must("starting coprocd", err)
	v := b.startVirt(b.compat(), "socket = "+card.Socket+"\n", emulatorXML)
	v.live()

	slot := v.slot(card)
	if slot.Name != v.domain.UUID || slot.Life != abi.LifeClosed {
		t.Errorf("after destroy the slot is %q, %v, want it closed and named by the machine", slot.Name, slot.Life)
	}
	if got, want := v.in("ls -A "+stateDir), "hwvtpm.json\nhwvtpm.key"; got != want {
		t.Errorf("the state directory has %q, want %q", got, want)
	}
	if got, want := v.in("stat -c '%U %a' "+stateDir+"/hwvtpm.key"), "tss 600"; got != want {
		t.Errorf("the access key is of %q, want %q", got, want)
	}
	v.checkReset()
	v.virsh("undefine")
	v.in("test ! -e " + stateDir)
	// The same machine once more is another TPM; the first one is the operator's.
	v.must("define", v.libvirt.Define(v.ctx, v.domain))
	v.virsh("start")
	v.virsh("destroy")
	if got := v.in("cat " + stateDir + "/hwvtpm.json"); !strings.Contains(got, v.domain.UUID+"-2") {
		t.Errorf("the second TPM is %s, want slot %s-2", got, v.domain.UUID)
	}
}

// slot gives the slot that libvirt's machine has.
func (v *virt) slot(card *lab.Coprocd) (info abi.SlotInfo) {
	v.Helper()
	v.must("looking at the slot", card.Admin(v.ctx, func(a *admin.Client) (err error) {
		info, err = a.Show(v.ctx, v.domain.UUID)
		return err
	}))
	return info
}

// Without coprocd the TPM lives in the state directory.
func TestLibvirtDropInAlone(t *testing.T) {
	b := newBed(t)
	v := b.startVirt(b.compat(), "socket = none\n", emulatorXML)
	v.virsh("start")
	v.meet()
	v.define(uint16(len(kept)))
	v.writeNV(kept)
	v.virsh("destroy")
	v.virsh("start")
	v.meet()
	v.wantNV("destroy and start", kept)
	v.virsh("destroy")
	v.virsh("undefine", "--keep-tpm")
	v.in("test -e " + stateDir + "/hwvtpm-card/state")
}

// libvirt connects QEMU to a backend that somebody else started.
func TestLibvirtExternal(t *testing.T) {
	b := newBed(t)
	backend, err := b.StartBackend(b.ctx, lab.BackendOptions{Emulator: true})
	b.must("starting the backend", err)
	xml := `<tpm model='tpm-crb'><backend type='external'><source type='unix' mode='connect' path='` + backend.Socket + `'/></backend></tpm>`
	v := b.startVirt("", "", xml)
	v.live()
	v.virsh("undefine")
	if !backend.Alive() {
		t.Error("the backend ended with its machine")
	}
}
