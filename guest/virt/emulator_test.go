// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hwvtpm/guest/lab"
)

// emulatorXML is what people have in their domains for swtpm.
const emulatorXML = `<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>`

// swtpmLog is where libvirt has swtpm log.
const swtpmLog = "log/swtpm/libvirt/qemu/vm-swtpm.log"

// live takes a machine on QEMU 7.2 through its life, up to its end.
func (m *machine) live() {
	m.Helper()
	m.start()
	m.wantPCR("the first start", digest{})
	m.fill()
	m.wantSlot("live")

	want := m.touch()
	m.virsh("managedsave")
	m.hangUp()
	if state := m.virsh("domstate"); state != "shut off" {
		m.Errorf("after managedsave the domain is %q", state)
	}
	m.start()
	m.wantLast("managedsave and start", want)

	m.reset()
	m.wantFresh("a reset by libvirt")
	m.touch()
	m.reboot()
	m.wantFresh("a reboot of the guest")
	m.touch()
	m.rebootByLibvirt()
	m.wantFresh("a reboot by libvirt")

	m.touch()
	m.destroy()
	m.start()
	m.wantFresh("destroy and start")
	m.destroy()
}

// stateDir is where libvirt keeps the machine's TPM.
func (m *machine) stateDir() string {
	m.Helper()
	return m.Path("lib/swtpm/" + m.virsh("domuuid") + "/tpm2")
}

// libvirt's emulator backend starts hwvtpm-swtpm instead of swtpm, as user tss, and
// its TPM is a slot of coprocd's card.
func TestDropInOnCoprocd(t *testing.T) {
	d := Domain{Name: "vm", QEMU: StockQEMU, TPM: emulatorXML}
	m := newMachine(t, d)
	uuid, state := m.virsh("domuuid"), m.stateDir()
	m.slot = uuid
	m.wantNothing(state)
	m.live()
	m.goBack(older{log: swtpmLog, act: "vtpmctl slot adopt NAME --restore", permit: m.adopt})
	m.wantFiles(state, "hwvtpm.json", "hwvtpm.key")
	info, err := os.Stat(state + "/hwvtpm.key")
	m.must("looking at the access key", err)
	if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != 0o600 || owner == 0 {
		t.Errorf("the access key is of user %d with mode %o, want 600 and not root", owner, info.Mode().Perm())
	}
	m.virsh("undefine")
	m.wantNothing(state)
	m.wantSlot("closed")

	// The same machine once more is another TPM; the first one is the operator's.
	d.Head = "<uuid>" + uuid + "</uuid>"
	m.must("defining again", m.Define(m.ctx, d))
	m.virsh("start")
	m.virsh("destroy")
	text, err := os.ReadFile(state + "/hwvtpm.json")
	m.must("reading the new state", err)
	if !strings.Contains(string(text), uuid+"-2") {
		t.Errorf("the second TPM is %s, want slot %s-2", text, uuid)
	}
}

// wantNothing: a domain that was not started yet, or is no more, has no TPM.
func (m *machine) wantNothing(state string) {
	m.Helper()
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		m.Errorf("there is a state directory: %v", err)
	}
}

// wantFiles wants a folder to have these files and no others.
func (m *machine) wantFiles(dir string, want ...string) {
	m.Helper()
	entries, err := os.ReadDir(dir)
	m.must("looking at the state directory", err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		m.Errorf("%s has %q, want %q", filepath.Base(dir), got, want)
	}
}

// Without coprocd the TPM lives in the state directory.
func TestDropInAlone(t *testing.T) {
	m := newMachine(t, Domain{Name: "vm", QEMU: StockQEMU, TPM: emulatorXML})
	m.must("choosing no coprocd", m.UseOwnCards())
	state := m.stateDir()
	m.wantNothing(state)
	m.live()
	m.goBack(older{log: swtpmLog, act: "make a file", permit: func() {
		m.must("permitting an older state", os.WriteFile(state+"/hwvtpm-card/restore", nil, 0o600))
	}})
	m.virsh("undefine", "--keep-tpm")
	m.wantFiles(state, "hwvtpm-card", "hwvtpm.json")
}

// libvirt connects QEMU to a backend that somebody else started.
func TestExternal(t *testing.T) {
	h, ctx := newHost(t)
	m := &machine{Host: h, T: t, ctx: ctx, name: "vm", slot: "vm1"}
	m.must("making a slot", h.CreateSlot(ctx, "vm1"))
	backend := m.serveExternal()
	xml := `<tpm model='tpm-crb'><backend type='external'><source type='unix' mode='connect' path='` +
		inside + "/run/vm1.sock" + `'/></backend></tpm>`
	m.must("defining", h.Define(ctx, Domain{Name: m.name, QEMU: StockQEMU, TPM: xml}))
	m.live()
	m.goBack(older{log: "log/vhost-user-vtpm.log", act: "vtpmctl slot adopt NAME --restore", permit: m.adopt})
	m.virsh("undefine")
	if !backend.Alive() {
		t.Error("the backend ended with its machine")
	}
	m.wantSlot("closed")
}

// serveExternal starts a backend on the slot, as an operator would.
func (m *machine) serveExternal() *lab.Backend {
	m.Helper()
	rig, err := lab.NewRig(m.Env, m.Path("log"))
	m.must("making a rig", err)
	m.Cleanup(func() { rig.Close() })
	backend, err := rig.StartBackend(m.ctx, lab.BackendOptions{
		Emulator: true,
		Coprocd:  &lab.Coprocd{Socket: m.Path("coprocd.sock"), Slot: "vm1", KeyFile: m.Path("keys/vm1.key")},
		Extra:    []string{"--tpm-emulator-socket", m.Path("run/vm1.sock"), "--socket-mode", "0666"},
	})
	m.must("starting the backend", err)
	return backend
}
