// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"context"
	"crypto/sha256"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
)

const (
	pcr     = 8         // only a reset of the machine clears it
	nvIndex = 0x1500020 // in the owner's range
)

type digest = [sha256.Size]byte

// machine is a domain of a test, with the agent of its guest.
type machine struct {
	*Host
	*testing.T
	ctx   context.Context
	name  string
	agent *agent.Client
	hello agent.Hello // of the present boot
}

func newHost(t *testing.T) (*Host, context.Context) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_VM") != "1" {
		t.Skip("set HWVTPM_TEST_VM=1 to run libvirt and virtual machines")
	}
	env, err := lab.Find()
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Prepare(t.Context(), os.Stderr); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), env.Patience(2*time.Minute))
	t.Cleanup(cancel)
	h, err := Start(ctx, env, t.ArtifactDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("ending the host: %v", err)
		}
	})
	return h, ctx
}

func (m *machine) must(what string, err error) {
	m.Helper()
	if err != nil {
		m.Fatalf("%s: %v", what, err)
	}
}

func (m *machine) virsh(args ...string) string {
	m.Helper()
	out, err := m.Virsh(m.ctx, args...)
	m.must(strings.Join(args, " "), err)
	return out
}

// start starts the domain and waits for its guest and the TPM in it.
func (m *machine) start() {
	m.Helper()
	m.virsh("start", m.name)
	var err error
	m.agent, m.hello, err = m.Agent(m.ctx, m.name)
	m.must("booting", err)
	m.Cleanup(func() { m.agent.Close() })
	m.awaitTPM()
}

// awaitBoot waits for another boot than the present one.
func (m *machine) awaitBoot() {
	m.Helper()
	var err error
	m.hello, err = m.agent.WaitBoot(m.ctx, m.hello)
	m.must("booting again", err)
	m.awaitTPM()
}

func (m *machine) awaitTPM() {
	m.Helper()
	limit := time.Now().Add(m.Env.Patience(30 * time.Second))
	for {
		err := m.agent.Call(m.ctx, agent.OpTPMInfo, agent.TPMArgs{}, nil)
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			m.Fatalf("the guest got no TPM: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (m *machine) wantPCR(after string, want digest) {
	m.Helper()
	values, err := m.agent.PCRRead(m.ctx, "sha256", pcr)
	m.must("reading the PCR", err)
	if got := digest(values[pcr]); got != want {
		m.Errorf("after %s: PCR %d = %x, want %x", after, pcr, got, want)
	}
}

// extend measures into a PCR that is zero, and returns its new value.
func (m *machine) extend() digest {
	m.Helper()
	event := sha256.Sum256([]byte("event"))
	m.must("extending the PCR", m.agent.PCRExtend(m.ctx, "sha256", pcr, event[:]))
	return sha256.Sum256(append(make([]byte, sha256.Size), event[:]...))
}

func (m *machine) wantNV(after, want string) {
	m.Helper()
	var d agent.Data
	m.must("reading NV", m.agent.Call(m.ctx, agent.OpNVRead, agent.NVArgs{Index: nvIndex, Size: uint16(len(want))}, &d))
	if string(d.Data) != want {
		m.Errorf("after %s: NV index holds %q, want %q", after, d.Data, want)
	}
}

// TestVirtioFace takes a domain with the virtio TPM through its life.
func TestVirtioFace(t *testing.T) {
	const secret = "kept by the slot"
	h, ctx := newHost(t)
	m := &machine{Host: h, T: t, ctx: ctx, name: "vm"}
	m.must("making a slot", h.CreateSlot(ctx, "vm1"))
	head, err := h.VirtioTPM(ctx, "vm1")
	m.must("printing XML", err)
	m.must("defining", h.Define(ctx, Domain{Name: m.name, Head: head}))

	m.start()
	m.wantPCR("the first start", digest{})
	m.must("defining an NV index", m.agent.Call(ctx, agent.OpNVDefine, agent.NVArgs{Index: nvIndex, Size: uint16(len(secret))}, nil))
	m.must("writing NV", m.agent.Call(ctx, agent.OpNVWrite, agent.NVArgs{Index: nvIndex, Data: []byte(secret)}, nil))

	m.extend()
	m.virsh("reset", m.name)
	m.awaitBoot()
	m.wantPCR("a reset by libvirt", digest{})

	m.extend()
	m.hello, err = m.agent.Reboot(ctx)
	m.must("rebooting", err)
	m.awaitTPM()
	m.wantPCR("a reboot of the guest", digest{})

	want := m.extend()
	m.killBackend()
	m.wantPCR("the death of the backend", want)
	m.virsh("reset", m.name)
	m.awaitBoot()
	m.wantPCR("a reset after the death of the backend", digest{})

	m.destroy()
	m.start()
	m.wantPCR("another start", digest{})
	m.wantNV("another start", secret)
	m.destroy()
	m.virsh("undefine", m.name)
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

// destroy ends the domain, and with it its backend.
func (m *machine) destroy() {
	m.Helper()
	m.virsh("destroy", m.name)
	m.agent.Close()
	if pid, _, err := m.SocketOwner("run/vm/vm1/vtpm.sock"); err != nil || pid != 0 {
		m.Errorf("after destroy process %d serves the TPM (%v)", pid, err)
	}
	if state := m.virsh("domstate", m.name); state != "shut off" {
		m.Errorf("after destroy the domain is %q", state)
	}
}
