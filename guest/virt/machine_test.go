// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"context"
	"crypto/sha256"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
)

const (
	pcr        = 8         // only a reset of the machine clears it
	nvIndex    = 0x1500020 // in the owner's range
	kept       = "kept by the TPM"
	persistent = "0x81000100"
)

type digest = [sha256.Size]byte

// machine is a domain of a test, with the agent of its guest.
type machine struct {
	*Host
	*testing.T
	ctx   context.Context
	name  string
	slot  string // of the host's card; empty: the TPM is not there
	agent *agent.Client
	hello agent.Hello // of the present boot

	keyName string // of the persistent key, once there is one
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
	ctx, cancel := context.WithTimeout(t.Context(), env.Patience(3*time.Minute))
	t.Cleanup(cancel)
	h, err := Start(ctx, env, t.ArtifactDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs:%s", h.logTails())
		}
		if err := h.Close(); err != nil {
			t.Errorf("ending the host: %v", err)
		}
	})
	return h, ctx
}

// newMachine starts a host and defines a domain on it.
func newMachine(t *testing.T, d Domain) *machine {
	t.Helper()
	h, ctx := newHost(t)
	m := &machine{Host: h, T: t, ctx: ctx, name: d.Name}
	m.must("defining", h.Define(ctx, d))
	return m
}

func (m *machine) must(what string, err error) {
	m.Helper()
	if err != nil {
		m.Fatalf("%s: %v", what, err)
	}
}

// virsh runs a command of virsh on the domain.
func (m *machine) virsh(command string, more ...string) string {
	m.Helper()
	begin := time.Now()
	out, err := m.Virsh(m.ctx, append([]string{command, m.name}, more...)...)
	m.must(command, err)
	m.Logf("virsh %s: %.1f s", command, time.Since(begin).Seconds())
	return out
}

// start starts the domain and waits for its guest and the TPM in it.
func (m *machine) start() {
	m.Helper()
	m.virsh("start")
	m.meet()
}

// meet waits for the guest of a machine that was started or restored.
func (m *machine) meet() {
	m.Helper()
	m.hangUp()
	var err error
	m.agent, m.hello, err = m.Agent(m.ctx, m.name)
	m.must("booting", err)
	m.Cleanup(func() { m.hangUp() })
	m.awaitTPM()
}

func (m *machine) hangUp() {
	if m.agent != nil {
		m.agent.Close()
		m.agent = nil
	}
}

// reset has libvirt reset the machine, and waits for its next boot.
func (m *machine) reset() {
	m.Helper()
	m.virsh("reset")
	var err error
	m.hello, err = m.agent.WaitBoot(m.ctx, m.hello)
	m.must("booting again", err)
	m.awaitTPM()
}

// reboot has the guest reboot itself.
func (m *machine) reboot() {
	m.Helper()
	var err error
	m.hello, err = m.agent.Reboot(m.ctx)
	m.must("rebooting", err)
	m.awaitTPM()
}

// rebootByLibvirt has libvirt reboot the machine: it asks the guest to power off,
// and resets a machine that did. The guest here does not listen to the button.
func (m *machine) rebootByLibvirt() {
	m.Helper()
	m.virsh("reboot")
	m.must("powering off", m.agent.Poweroff(m.ctx))
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

// destroy ends the domain.
func (m *machine) destroy() {
	m.Helper()
	m.virsh("destroy")
	m.hangUp()
	if state := m.virsh("domstate"); state != "shut off" {
		m.Errorf("after destroy the domain is %q", state)
	}
	m.wantSlot("closed")
}

// wantSlot waits until the slot is in some condition. Who serves QEMU lets go of it
// a moment after QEMU has ended.
func (m *machine) wantSlot(life string) {
	m.Helper()
	if m.slot == "" {
		return
	}
	limit := time.Now().Add(m.Env.Patience(10 * time.Second))
	for {
		out, err := m.Vtpmctl(m.ctx, "slot", "show", m.slot)
		m.must("looking at the slot", err)
		if slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
			return slices.Equal(strings.Fields(line), []string{"state:", life})
		}) {
			return
		}
		if time.Now().After(limit) {
			m.Fatalf("slot %s is not %s:\n%s", m.slot, life, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// sh runs a command line in the guest and returns what it prints.
func (m *machine) sh(line string) string {
	m.Helper()
	r, err := m.agent.Run(m.ctx, "gosh", "-c", line)
	m.must(line, err)
	m.must(line, r.Err())
	return strings.TrimSpace(string(r.Stdout))
}

// fill uses the TPM and leaves in it what must outlive a machine: an NV index and
// a persistent key.
func (m *machine) fill() {
	m.Helper()
	if got := m.sh("tpm2_getrandom --hex 32"); len(got) != 64 {
		m.Errorf("tpm2_getrandom --hex 32 printed %q", got)
	}
	m.must("defining an NV index", m.agent.Call(m.ctx, agent.OpNVDefine, agent.NVArgs{Index: nvIndex, Size: uint16(len(kept))}, nil))
	m.writeNV(kept)
	m.sh("tpm2_createprimary -Q -C o -G ecc256 -c /primary.ctx && tpm2_evictcontrol -Q -C o -c /primary.ctx " + persistent)
	m.keyName = m.readKey()
}

func (m *machine) writeNV(data string) {
	m.Helper()
	m.must("writing NV", m.agent.Call(m.ctx, agent.OpNVWrite, agent.NVArgs{Index: nvIndex, Data: []byte(data)}, nil))
}

func (m *machine) readKey() string {
	m.Helper()
	return m.sh("tpm2_readpublic -Q -c " + persistent + " -n /key.name && hexdump /key.name")
}

// touch leaves in the TPM what a reset of the machine clears, and returns the PCR:
// a measurement, and a key that is loaded past the kernel's resource manager.
func (m *machine) touch() digest {
	m.Helper()
	event := sha256.Sum256([]byte("event"))
	m.must("extending the PCR", m.agent.PCRExtend(m.ctx, "sha256", pcr, event[:]))
	m.sh("tpm2_createprimary -Q -T device:/dev/tpm0 -C n -G ecc256 -c /transient.ctx")
	return sha256.Sum256(append(make([]byte, sha256.Size), event[:]...))
}

// transients lists the loaded keys, but for those of the resource manager.
func (m *machine) transients() string {
	m.Helper()
	return m.sh("tpm2_getcap -T device:/dev/tpm0 handles-transient")
}

// wantFresh: the TPM is as after a reset, and has kept what fill left in it.
func (m *machine) wantFresh(after string) {
	m.Helper()
	m.wantPCR(after, digest{})
	if got := m.transients(); got != "" {
		m.Errorf("after %s the TPM has transient objects: %s", after, got)
	}
	m.wantKept(after)
}

// wantLast: the TPM is as touch left it.
func (m *machine) wantLast(after string, want digest) {
	m.Helper()
	m.wantPCR(after, want)
	if m.transients() == "" {
		m.Errorf("after %s the loaded key is gone", after)
	}
	m.wantKept(after)
}

// wantKept: NV index and persistent key are what fill left.
func (m *machine) wantKept(after string) {
	m.Helper()
	m.wantNV(after, kept)
	if got := m.readKey(); got != m.keyName {
		m.Errorf("after %s the persistent key is %s, want %s", after, got, m.keyName)
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

func (m *machine) wantNV(after, want string) {
	m.Helper()
	var d agent.Data
	m.must("reading NV", m.agent.Call(m.ctx, agent.OpNVRead, agent.NVArgs{Index: nvIndex, Size: uint16(len(want))}, &d))
	if string(d.Data) != want {
		m.Errorf("after %s: NV index holds %q, want %q", after, d.Data, want)
	}
}
