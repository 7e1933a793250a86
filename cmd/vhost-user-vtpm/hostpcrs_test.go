// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/sim"
	"hwvtpm/qmp/qmptest"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/bootevidence/bootevidencetest"
	"hwvtpm/vtpm/hostdoor"
	"hwvtpm/vtpm/hostdoor/hostdoortest"
)

func TestParseArgsHost(t *testing.T) {
	for _, tt := range []struct {
		args string
		mode hostdoor.Mode
	}{
		{"--socket-path s --qmp q", hostdoor.ModeOff},
		{"--socket-path s --qmp q --hostd h", hostdoor.ModeMap},
		{"--socket-path s --qmp q --hostd h --host-pcrs evidence", hostdoor.ModeEvidence},
		{"--tpm-emulator-socket s --hostd h", hostdoor.ModeEvidence},
		{"--tpm-emulator-socket s --hostd h --host-pcrs map", hostdoor.ModeMap},
		{"--socket-path s --qmp q --host-pcrs map", ""},
		{"--socket-path s --qmp q --hostd h --host-pcrs maybe", ""},
	} {
		c, err := parseArgs(strings.Fields(tt.args+" --coproc sim:d"), io.Discard)
		switch {
		case tt.mode != "" && (err != nil || c.hostPCRs != tt.mode):
			t.Errorf("parseArgs(%q) = %q, %v; want %s", tt.args, c.hostPCRs, err, tt.mode)
		case tt.mode == "" && (err == nil || !strings.Contains(err.Error(), "--host-pcrs")):
			t.Errorf("parseArgs(%q) = %v, want an error that says --host-pcrs", tt.args, err)
		}
	}
}

// pcr0 is PCR 0 in the SHA-256 bank.
func (g *guest) pcr0() []byte {
	g.t.Helper()
	rc, rest := g.command(message(0x8001, 0x17e, "\x00\x00\x00\x01\x00\x0b\x03\x01\x00\x00"))
	if rc != 0 || len(rest) < 32 {
		g.t.Fatalf("TPM2_PCR_Read = %#x, %x", rc, rest)
	}
	return rest[len(rest)-32:]
}

// wantMapped starts the TPM and checks that PCR 0 is the host's, for good.
func (g *guest) wantMapped(h *bootevidencetest.Host) {
	g.t.Helper()
	if rc := g.startup(); rc != 0 {
		g.t.Fatalf("TPM2_Startup = %#x", rc)
	}
	const locality = 0x907 // TPM_RC_LOCALITY
	body := "\x00\x00\x00\x00" + passwordSession + "\x00\x00\x00\x01\x00\x0b" + digestOfTest
	if rc, _ := g.command(message(0x8002, 0x182, body)); rc != locality {
		g.t.Errorf("TPM2_PCR_Extend of PCR 0 = %#x, want %#x", rc, locality)
	}
	if got, want := g.pcr0(), h.PCRs.Value(abi.BankSHA256, 0); !bytes.Equal(got, want) {
		g.t.Errorf("PCR 0 = %x, want %x", got, want)
	}
}

// TestHostPCRs: the guest's PCR 0-7 are the host's of its last reset. While the host's
// daemon is away the TPM fails, until a reset when it is back, and nothing else waits
// for it.
func TestHostPCRs(t *testing.T) {
	monitor := qmptest.Start(t)
	socket, metrics := hostdoortest.SocketPath(t), filepath.Join(t.TempDir(), "metrics")
	first, second := bootevidencetest.New(t, 0x10), bootevidencetest.New(t, 0x20)
	d, stop := hostdoortest.Start(t, socket, first)
	p := start(t, stateDir(t), "--qmp", monitor.Path(), "--hostd", socket, "--metrics", "unix:"+metrics)
	g := connect(t, p, vhostusertest.Options{Features: 7})
	p.waitLog("connected to QEMU's monitor")
	g.wantMapped(first)
	d.Host.Store(second)
	g.must(g.f.Restart()) // a rebind: the same boot
	if got := g.pcr0(); !bytes.Equal(got, first.PCRs.Value(abi.BankSHA256, 0)) {
		t.Errorf("PCR 0 after a rebind = %x", got)
	}
	reset := func() {
		t.Helper()
		g.must(g.f.Stop())
		monitor.Event("RESET", map[string]any{"guest": true, "reason": "guest-reset"})
		g.must(g.f.Restart())
	}
	reset()
	g.wantMapped(second)

	stop()
	if got := g.pcr0(); !bytes.Equal(got, second.PCRs.Value(abi.BankSHA256, 0)) {
		t.Errorf("PCR 0 when the daemon has gone = %x", got)
	}
	reset()
	const failure = 0x101 // TPM_RC_FAILURE
	if rc := g.startup(); rc != failure {
		t.Errorf("TPM2_Startup without the daemon = %#x, want %#x", rc, failure)
	}
	p.waitLog("see that vtpm-hostd serves")
	_, stop = hostdoortest.Start(t, socket, first)
	if rc := g.startup(); rc != failure {
		t.Errorf("TPM2_Startup when it is back = %#x, want %#x until a reset", rc, failure)
	}
	reset()
	g.wantMapped(first)
	stop()

	got := scrape(t, metrics)
	for _, want := range []string{
		`hwvtpm_host_pcrs_mode{mode="map"} 1`,
		`hwvtpm_host_pcrs_mode{mode="off"} 0`,
		`hwvtpm_host_questions_total{result="success"} 3`,
		`hwvtpm_host_questions_total{result="refused"} 1`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
}

// TestMapOutlivesProcesses: neither a killed engine nor a killed backend gives the guest
// PCRs that it could change; and a backend that comes back does not ask the host again.
func TestMapOutlivesProcesses(t *testing.T) {
	socket, state := hostdoortest.SocketPath(t), stateDir(t)
	h := bootevidencetest.New(t, 0x10)
	_, stop := hostdoortest.Start(t, socket, h)
	p := start(t, state, "--reset-policy=keep", "--hostd", socket)
	g := connect(t, p, vhostusertest.Options{Features: 7})
	g.wantMapped(h)
	stop()
	check := func(when string) {
		t.Helper()
		body := "\x00\x00\x00\x07" + passwordSession + "\x00\x00\x00\x01\x00\x0b" + digestOfTest
		if rc, _ := g.command(message(0x8002, 0x182, body)); rc != 0x907 {
			t.Errorf("%s: TPM2_PCR_Extend of PCR 7 = %#x", when, rc)
		}
		if got := g.pcr0(); !bytes.Equal(got, h.PCRs.Value(abi.BankSHA256, 0)) {
			t.Errorf("%s: PCR 0 = %x", when, got)
		}
	}
	g.must(g.f.Restart())
	check("after a rebind")
	if err := syscall.Kill(p.enginePID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	check("after the engine was killed")
	p.signal(syscall.SIGKILL)
	p.wait()
	g.f.Close()
	p = start(t, state, "--reset-policy=keep", "--hostd", socket)
	g = connect(t, p, vhostusertest.Options{Features: 7})
	check("after the backend was killed")
}

// TestHostEvidence: the guest reads what its host's TPM says in NV, and its own PCRs
// stay its own; without the daemon it starts all the same.
func TestHostEvidence(t *testing.T) {
	monitor, socket := qmptest.Start(t), hostdoortest.SocketPath(t)
	h := bootevidencetest.New(t, 0x10)
	_, stop := hostdoortest.Start(t, socket, h)
	p := start(t, stateDir(t), "--qmp", monitor.Path(), "--hostd", socket, "--host-pcrs=evidence")
	g := connect(t, p, vhostusertest.Options{Features: 7})
	p.waitLog("connected to QEMU's monitor")
	g.boot()
	if got := g.pcr0(); !bytes.Equal(got, make([]byte, 32)) {
		t.Errorf("PCR 0 = %x, want zero", got)
	}
	e, err := bootevidence.Parse(g.readEvidence())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(&h.Key.PublicKey); err != nil || e.Slot != sim.SlotName {
		t.Errorf("evidence of %q: %v", e.Slot, err)
	}
	stop()
	g.must(g.f.Stop())
	monitor.Event("RESET", map[string]any{"guest": true, "reason": "guest-reset"})
	g.must(g.f.Restart())
	g.boot()
	p.waitLog("no new evidence of its host's boot")
	if again, err := bootevidence.Parse(g.readEvidence()); err != nil || again.Run != e.Run {
		t.Errorf("evidence of this run after a reset: %v", err)
	}
}

// readEvidence reads the NV index with the owner's empty password.
func (g *guest) readEvidence() (all []byte) {
	g.t.Helper()
	for len(all) < abi.MaxBootEvidence {
		body := binary.BigEndian.AppendUint32([]byte{0x40, 0, 0, 1}, abi.BootEvidenceIndex)
		body = append(body, passwordSession...)
		body = binary.BigEndian.AppendUint16(body, 1024)
		body = binary.BigEndian.AppendUint16(body, uint16(len(all)))
		rc, rest := g.command(message(0x8002, 0x14e, string(body)))
		if rc != 0 || len(rest) < 6+1024 {
			g.t.Fatalf("TPM2_NV_Read = %#x, %d bytes", rc, len(rest))
		}
		all = append(all, rest[6:6+1024]...)
	}
	return all
}
