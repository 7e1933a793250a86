// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
)

// machine is a domain of a test, with the agent of its guest.
type machine struct {
	*Host
	*testing.T
	ctx   context.Context
	name  string
	slot  string // of the host's card; empty: the TPM is not there
	agent *agent.Client
	hello agent.Hello // of the present boot

	// What fill has found and left: PCRs that firmware measures into, and the name of
	// the persistent key.
	measured agent.PCRs
	keyName  string
}

// prepared is the lab, made ready once for all tests.
var prepared = sync.OnceValues(func() (*lab.Env, error) {
	env, err := lab.Find()
	if err == nil {
		err = env.Prepare(context.Background(), os.Stderr)
	}
	return env, err
})

// newHost starts a host for one of several tests that run at once.
func newHost(t *testing.T) (*Host, context.Context) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_VM") != "1" {
		t.Skip("set HWVTPM_TEST_VM=1 to run libvirt and virtual machines")
	}
	t.Parallel()
	env, err := prepared()
	if err != nil {
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

// awaitTPM waits until the guest's driver has made a TPM of the device. The kernel's
// own driver gives up for good on a TPM that takes 0.75 s for one of its first
// commands, as anything may on a busy machine under emulation. It is asked again.
func (m *machine) awaitTPM() {
	m.Helper()
	begin := time.Now()
	for patience := 10 * time.Second; ; time.Sleep(50 * time.Millisecond) {
		err := m.agent.Call(m.ctx, agent.OpTPMInfo, agent.TPMArgs{}, nil)
		if err == nil {
			return
		}
		waited := time.Since(begin)
		if waited > m.Env.Patience(30*time.Second) {
			m.Fatalf("the guest got no TPM: %v; its kernel says\n%s", err, m.sh("dmesg | grep -i tpm"))
		}
		if waited > patience {
			patience += 10 * time.Second
			r, err := m.agent.Run(m.ctx, "gosh", "-c", "echo MSFT0101:00 > /sys/bus/acpi/drivers/tpm_crb/bind")
			m.Logf("no TPM after %.0f s: bound tpm_crb again: %v", waited.Seconds(), errors.Join(err, r.Err()))
		}
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
