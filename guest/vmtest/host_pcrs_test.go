// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/sim"
	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/bootevidence/bootevidencetest"
	"hwvtpm/vtpm/hostdoor/hostdoortest"
)

// A guest without firmware that measures has PCR 0-7 of its host, which it cannot
// change, over a reboot, a kexec and a rebind of its driver. Where the host's daemon is
// away at a reset the guest has no TPM, until the next reset when it is back.
func TestGuestHasPCRsOfItsHost(t *testing.T) {
	b := newBed(t)
	socket, first, second := hostdoortest.SocketPath(t), bootevidencetest.New(t, 0x10), bootevidencetest.New(t, 0x20)
	daemon, stop := hostdoortest.Start(t, socket, first)
	m := &machine{bed: b, variant: variant{"both", true}, monitor: b.MonitorPath()}
	var err error
	m.backend, err = b.StartBackend(b.ctx, lab.BackendOptions{QMP: m.monitor, Extra: []string{"--hostd", socket}})
	m.must("starting the backend", err)
	m.boot(m.kexecOptions())
	device := agent.BindArgs{Device: m.awaitTPM().Name, Driver: "tpm_virtio"}
	m.wantHostPCRs("power-on", first)
	own := m.extend("by the guest")

	daemon.Host.Store(second) // as if the machine had moved: seen at the next reset
	m.must("unbind", m.guest.Agent.Call(m.ctx, agent.OpDriverUnbind, device, nil))
	m.must("bind", m.guest.Agent.Call(m.ctx, agent.OpDriverBind, device, nil))
	m.awaitTPM()
	m.wantHostPCRs("a rebind", first)
	m.kexec()
	m.wantHostPCRs("kexec", first)
	m.wantPCR("kexec", own)

	_, err = m.guest.Agent.Reboot(m.ctx)
	m.must("reboot", err)
	m.awaitTPM()
	m.wantHostPCRs("reboot", second)
	m.wantPCR("reboot", digest{})

	stop()
	m.wantHostPCRs("the end of the host's daemon", second)
	m.reset()
	m.wantNoTPM()
	hostdoortest.Start(t, socket, first)
	m.reset()
	m.awaitTPM()
	m.wantHostPCRs("a reset when the daemon is back", first)
}

// wantHostPCRs checks that PCR 0-7 are a host's, and that the guest cannot change them.
func (m *machine) wantHostPCRs(after string, h *bootevidencetest.Host) {
	m.Helper()
	var pcrs []int
	for n := range abi.HostPCRs {
		pcrs = append(pcrs, n)
		err := m.guest.Agent.PCRExtend(m.ctx, "sha256", n, make([]byte, len(digest{})))
		if err == nil || !strings.Contains(err.Error(), "TPM_RC_LOCALITY") {
			m.Errorf("after %s: extending PCR %d: %v, want TPM_RC_LOCALITY", after, n, err)
		}
	}
	values, err := m.guest.Agent.PCRRead(m.ctx, "sha256", pcrs...)
	m.must("reading PCRs", err)
	for n, v := range values {
		if want := h.PCRs.Value(abi.BankSHA256, n); !bytes.Equal(v, want) {
			m.Errorf("after %s: PCR %d = %x, want %x", after, n, v, want)
		}
	}
}

// wantNoTPM waits until the guest's driver has given up on a TPM that answers with
// TPM_RC_FAILURE, or has made one that does so.
func (m *machine) wantNoTPM() {
	m.Helper()
	limit := time.Now().Add(m.Env.Patience(20 * time.Second))
	for !strings.Contains(m.sh("dmesg"), "A TPM error (257)") { // TPM_RC_FAILURE is 0x101
		if time.Now().After(limit) {
			m.Fatalf("the guest's kernel has not met a TPM that fails; it says\n%s", m.sh("dmesg | tail -n 20; ls /dev | grep tpm"))
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := m.guest.Agent.PCRExtend(m.ctx, "sha256", pcr, make([]byte, len(digest{}))); err == nil {
		m.Error("a TPM without the host's PCRs can be used")
	}
}

// A guest whose own firmware measures keeps its PCR 0-7, and shows those of its host in
// NV, with the host's quote, to any TPM tool.
func TestOVMFGuestShowsEvidenceOfItsHost(t *testing.T) {
	b := newBed(t)
	socket, h := hostdoortest.SocketPath(t), bootevidencetest.New(t, 0x10)
	hostdoortest.Start(t, socket, h)
	m := &machine{bed: b}
	var err error
	m.backend, err = b.StartBackend(b.ctx, lab.BackendOptions{Emulator: true, Extra: []string{"--hostd", socket}})
	b.must("starting the backend", err)
	e := &emulated{machine: m, qemu: m.Env.StockQEMU(), model: "tpm-crb"}
	e.power(lab.VMOptions{Extra: m.pflash()})
	e.checkLog()
	first := e.evidence(h)
	e.reset()
	e.awaitDriver()
	e.checkLog()
	if again := e.evidence(h); again.Run != first.Run || bytes.Equal(again.Signature, first.Signature) {
		t.Errorf("after a reset there is evidence of run %x, want another quote for %x", again.Run[:4], first.Run[:4])
	}
}

// evidence reads the evidence with tpm2-tools and checks the host's quote in it.
func (e *emulated) evidence(h *bootevidencetest.Host) *bootevidence.Evidence {
	e.Helper()
	e.sh("tpm2_nvread -Q -C o -o /evidence 0x1200000")
	read, err := e.guest.Agent.ReadFile(e.ctx, "/evidence")
	e.must("reading the evidence", err)
	ev, err := bootevidence.Parse(read)
	e.must("parsing the evidence", err)
	if err := ev.Verify(&h.Key.PublicKey); err != nil || ev.Slot != sim.SlotName || ev.PCRs != h.PCRs {
		e.Errorf("evidence of slot %q: %v", ev.Slot, err)
	}
	return ev
}
