// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
)

// bootAgain boots another machine on the backend that runs.
func (m *machine) bootAgain() {
	m.Helper()
	m.boot(lab.VMOptions{TPM: m.tpm()})
	m.awaitTPM()
}

// The TPM's process is killed again and again while the guest writes NV and
// extends a PCR. The guest sees every command succeed, and in the end NV and PCR
// are exactly those of the acknowledged commands: none lost, none done twice.
func TestEngineIsKilledUnderLoad(t *testing.T) {
	const kills = 20
	m := newBed(t).powerOn(variant{"both", true})
	m.define(8)
	start := m.readPCR()
	m.must("starting the load", m.guest.Agent.Call(m.ctx, agent.OpLoadStart, agent.LoadArgs{Index: nvIndex, PCR: pcr}, nil))

	seen := map[int]bool{}
	for range kills {
		m.killEngine(seen)
	}

	var end agent.LoadStatus
	m.must("stopping the load", m.guest.Agent.Call(m.ctx, agent.OpLoadStop, nil, &end))
	t.Logf("%d engines killed in %d steps", len(seen), end.PCR)
	if end.Error != "" {
		t.Errorf("the guest saw an error: %s", end.Error)
	}
	if want := digest(agent.LoadPCR(start, end.PCR)); m.readPCR() != want {
		t.Errorf("PCR = %x, want %x: the value after the %d acknowledged extends", m.readPCR(), want, end.PCR)
	}
	if got := binary.BigEndian.Uint64([]byte(m.readNV(8))); got != end.NV {
		t.Errorf("NV holds %d, want the last acknowledged value %d", got, end.NV)
	}
	if !m.backend.Alive() || !m.guest.Alive() {
		t.Error("backend or QEMU died with an engine")
	}
}

// killEngine kills an engine that was not seen before under the load.
func (m *machine) killEngine(seen map[int]bool) {
	m.Helper()
	pid := m.awaitEngine(seen)
	// Any moment of a command's life should be met sometimes.
	time.Sleep(rand.N(30 * time.Millisecond))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		m.Fatalf("killing engine %d: %v", pid, err)
	}
	m.awaitProgress()
}

// awaitProgress waits until the load's command that is under way now was answered:
// a command that kills twice is refused. What is acknowledged from now on is that
// command, or a later one.
func (m *machine) awaitProgress() {
	m.Helper()
	progress := m.loadStatus().PCR
	for m.loadStatus().PCR == progress { // ends with m.ctx
	}
}

func (m *machine) loadStatus() agent.LoadStatus {
	m.Helper()
	status, err := m.guest.Agent.LoadStatus(m.ctx)
	m.must("asking for the load", err)
	if !status.Running {
		m.Fatalf("the load ended: %+v", status)
	}
	return status
}

// awaitEngine waits for an engine that was not seen before, and marks it as seen.
func (m *machine) awaitEngine(seen map[int]bool) int {
	m.Helper()
	for m.ctx.Err() == nil {
		if pid := m.backend.Engine(); pid != 0 && !seen[pid] {
			seen[pid] = true
			return pid
		}
		time.Sleep(time.Millisecond)
	}
	m.Fatal("no new engine came up")
	return 0
}

// A killed backend is replaced in the running machine by the documented recovery
// through the monitor. PCRs and NV are as the guest knew them, and afterwards a
// reset of the machine, which would have been its end, works.
func TestBackendIsKilledAndReplaced(t *testing.T) {
	m := newBed(t).powerOn(variant{"both", true})
	m.define(8)
	start := m.readPCR()
	m.must("starting the load", m.guest.Agent.Call(m.ctx, agent.OpLoadStart, agent.LoadArgs{Index: nvIndex, PCR: pcr}, nil))
	for m.loadStatus().PCR < 5 { // ends with m.ctx
	}
	m.backend.Kill()
	m.replaceBackend()

	// The load ended with the device that was pulled from under it. What was
	// acknowledged is there; the command under way may be, too.
	status, err := m.guest.Agent.LoadStatus(m.ctx)
	m.must("asking for the load", err)
	if status.Running || status.Error == "" {
		t.Errorf("the load did not notice that its device went: %+v", status)
	}
	nv := m.readNV(8)
	if got := binary.BigEndian.Uint64([]byte(nv)); got != status.NV && got != status.NV+1 {
		t.Errorf("NV holds %d, want the last acknowledged value %d or the next", got, status.NV)
	}
	value := m.readPCR()
	if value != agent.LoadPCR(start, status.PCR) && value != agent.LoadPCR(start, status.PCR+1) {
		t.Errorf("PCR = %x, which is not the value after %d or one more extends", value, status.PCR)
	}

	value = m.extend("between two crashes")
	m.backend.Kill()
	m.replaceBackend()
	m.wantPCR("replacing an idle backend", value)
	m.wantNV("replacing an idle backend", nv)

	m.reset()
	m.awaitTPM()
	m.wantPCR("a reset", digest{})
	m.wantNV("a reset", nv)
}

// replaceBackend brings the device of a dead backend back.
func (m *machine) replaceBackend() {
	m.Helper()
	m.startBackend()
	m.must("replacing the device", m.guest.QMP.ReplaceVhostUser(m.ctx, m.tpm().Spec()))
	m.awaitTPM()
}
