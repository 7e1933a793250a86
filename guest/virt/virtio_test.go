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
	m := &machine{Host: h, T: t, ctx: ctx, name: "vm"}
	m.must("making a slot", h.CreateSlot(ctx, "vm1"))
	head, err := h.VirtioTPM(ctx, "vm1")
	m.must("printing XML", err)
	m.must("defining", h.Define(ctx, Domain{Name: m.name, Head: head}))

	m.start()
	m.wantPCR("the first start", digest{})
	m.fill()

	m.touch()
	m.reset()
	m.wantFresh("a reset by libvirt")

	m.touch()
	m.reboot()
	m.wantFresh("a reboot of the guest")

	want := m.touch()
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
	// The slot is the operator's.
	if out, err := h.Vtpmctl(ctx, "slot", "show", "vm1"); err != nil || !strings.Contains(out, "closed") {
		t.Errorf("after undefine the slot is\n%s\n%v, want it closed", out, err)
	}
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
