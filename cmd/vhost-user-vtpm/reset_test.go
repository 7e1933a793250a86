// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"hwvtpm/qmp/qmptest"
	"hwvtpm/vhostuser/vhostusertest"
)

// QEMU's order at a reboot: the ring stops, RESET is written to the monitor's
// socket, the ring starts. However quickly the start follows, no command may
// reach the TPM of before; and a rebind, without RESET, may not reset it.
func TestMonitorDecides(t *testing.T) {
	monitor := qmptest.Start(t)
	p := start(t, stateDir(t), "--qmp", monitor.Path())
	g := connect(t, p, vhostusertest.Options{Features: 7})
	p.waitLog("connected to QEMU's monitor")
	g.boot()
	for range 100 {
		g.must(g.f.Stop())
		monitor.Event("RESET", map[string]any{"guest": true, "reason": "guest-reset"})
		g.must(g.f.Restart())
		was := g.boot()

		g.must(g.f.Restart())
		if got := g.pcr10(); got != was {
			t.Fatalf("PCR 10 after a rebind = %x, want %x", got, was)
		}
	}
	// SeaBIOS resets the machine twice in a row.
	g.must(g.f.Stop())
	monitor.Event("RESET", map[string]any{"guest": true, "reason": "guest-reset"})
	monitor.Event("RESET", map[string]any{"guest": true, "reason": "guest-reset"})
	g.must(g.f.Restart())
	g.boot()
}

// A monitor that stalls must not stall the ring: QEMU would be waiting for the
// backend, and the backend for QEMU.
func TestStalledMonitorStallsNothing(t *testing.T) {
	monitor := qmptest.Start(t)
	monitor.Handle("qmp_capabilities", qmptest.Stall())
	p := start(t, stateDir(t), "--qmp", monitor.Path())
	g := connect(t, p, vhostusertest.Options{Features: 7})
	was := g.boot()
	g.must(g.f.Restart())
	if got := g.pcr10(); got != was {
		t.Errorf("PCR 10 without word from the monitor = %x, want %x", got, was)
	}
	p.waitLog("without word from the QMP monitor")
}

// The volatile state is damaged while the backend is down: the machine's own
// TPM answers TPM_RC_FAILURE, and works again from the machine's next reset.
func TestDamagedVolatileStateFailsUntilReset(t *testing.T) {
	monitor := qmptest.Start(t)
	state := stateDir(t)
	p := start(t, state, "--qmp", monitor.Path())
	g := connect(t, p, vhostusertest.Options{Features: 7})
	g.boot()
	g.f.Close()
	p.signal(syscall.SIGTERM)
	p.wait()
	if err := os.Truncate(filepath.Join(state, "volatile"), 0); err != nil {
		t.Fatal(err)
	}

	p = start(t, state, "--qmp", monitor.Path())
	g = connect(t, p, vhostusertest.Options{Features: 7})
	p.waitLog("connected to QEMU's monitor")
	const failure = 0x101 // TPM_RC_FAILURE
	if rc := g.startup(); rc != failure {
		t.Errorf("TPM2_Startup over damaged state = %#x, want %#x", rc, failure)
	}
	g.must(g.f.Stop())
	monitor.Event("RESET", map[string]any{"guest": true, "reason": "guest-reset"})
	g.must(g.f.Restart())
	g.boot()
}
