// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestVirtioFace takes a domain with the virtio TPM through its life.
func TestVirtioFace(t *testing.T) {
	h, ctx := newHost(t)
	m := &machine{Host: h, T: t, ctx: ctx, name: "vm", slot: "vm1"}
	m.must("making a slot", h.CreateSlot(ctx, "vm1"))
	m.must("making a disk", os.WriteFile(m.Path("run/disk.qcow2"), qcow2(), 0o666))
	head, err := h.VirtioTPM(ctx, "vm1")
	m.must("printing XML", err)
	m.must("defining", h.Define(ctx, Domain{Name: m.name, Head: head, Disk: diskXML}))

	m.start()
	m.wantPCR("the first start", digest{})
	m.fill()
	m.wantSlot("live")

	m.touch()
	m.reset()
	m.wantFresh("a reset by libvirt")

	m.touch()
	m.reboot()
	m.wantFresh("a reboot of the guest")
	m.touch()
	m.rebootByLibvirt()
	m.wantFresh("a reboot by libvirt")

	want := m.touch()
	m.wantUnmovable(want)
	m.killBackend()
	m.wantLast("the death of the backend", want)
	m.reset()
	m.wantFresh("a reset after the death of the backend")

	m.touch()
	m.end()
	m.start()
	m.wantFresh("another start")
	m.end()
	m.virsh("undefine")
	m.wantSlot("closed") // it is the operator's
}

// wantUnmovable: QEMU can't save the state of the device. It says so, and the
// machine goes on with the TPM as it was.
func (m *machine) wantUnmovable(want digest) {
	m.Helper()
	const reason = "non-migratable device"
	m.refused(reason, "managedsave", m.name)
	m.refused(reason, "save", m.name, inside+"/run/vm.saved")
	m.refused(reason, "snapshot-create-as", m.name, "internal")
	m.refused(reason, "snapshot-create-as", m.name, "--memspec", "file="+inside+"/run/vm.memory,snapshot=external",
		"--diskspec", "vda,snapshot=external,file="+inside+"/run/overlay.qcow2")
	if state := m.virsh("domstate"); state != "running" {
		m.Errorf("after refusing to be saved the domain is %q", state)
	}
	m.wantLast("refusing to be saved", want)
}

// killBackend kills the backend and waits until the guest has its TPM again. The
// guest's driver gives up on the old device in its own time.
func (m *machine) killBackend() {
	m.Helper()
	pid, uid, err := m.SocketOwner("run/vm/vm1/vtpm.sock")
	m.must("finding the backend", err)
	if pid == 0 || uid == 0 {
		m.Fatalf("the backend is process %d of user %d, want one, and not root's", pid, uid)
	}
	m.must("killing the backend", syscall.Kill(pid, syscall.SIGKILL))
	for log := ""; !strings.Contains(log, "the machine has its TPM again"); time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(m.Path("log/vm1.log"))
		m.must("reading the backend's log", err)
		if m.ctx.Err() != nil {
			m.Fatalf("the TPM was not plugged in again: %s", text)
		}
		log = string(text)
	}
	m.awaitTPM()
}

// end ends the domain, and with it its backend.
func (m *machine) end() {
	m.Helper()
	m.destroy()
	if pid, _, err := m.SocketOwner("run/vm/vm1/vtpm.sock"); err != nil || pid != 0 {
		m.Errorf("after destroy process %d serves the TPM (%v)", pid, err)
	}
}
