// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"context"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// SlotName is the slot that the suite uses.
const SlotName = "default"

// Run runs the suite. open gives a card whose slot SlotName holds a new TPM;
// each test opens its own, and closes it.
func Run(t *testing.T, open func(t *testing.T) coproc.Device) {
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *card)
	}{
		{"PowerOnFresh", testPowerOnFresh},
		{"PowerOnSameRunResumes", testPowerOnSameRun},
		{"PowerOnOtherRunCycles", testPowerOnOtherRun},
		{"ReopenSameRunResumes", testReopenSameRun},
		{"ReopenOtherRunCycles", testReopenOtherRun},
		{"Reset", testReset},
		{"ResetIsIdempotent", testResetIdempotent},
		{"SleepAndHibernation", testSleep},
		{"HardResetIsNoPasswordAttack", testResetNoAttack},
		{"ExecuteBeforePowerOn", testExecuteBeforePowerOn},
		{"MalformedCommands", testMalformed},
		{"ShortResponseBuffer", testShortBuffer},
		{"Locality", testLocality},
		{"CancelIdle", testCancelIdle},
		{"CancelRunning", testCancelRunning},
		{"CancelByContext", testCancelByContext},
		{"Timeout", testTimeout},
		{"ConcurrentCallers", testConcurrent},
		{"CloseIsIdempotent", testCloseIdempotent},
		{"CloseWhileRunning", testCloseRunning},
		{"OpenSlot", testOpenSlot},
		{"Health", testHealth},
		{"MoveState", testMoveState},
		{"MoveStateBack", testMoveStateBack},
		{"MoveStateInRun", testMoveStateInRun},
		{"MoveStateRollback", testMoveStateRollback},
		{"MoveStateRefused", testMoveStateRefused},
		{"MapPCRs", testMapPCRs},
		{"MappedPCRsStay", testMappedPCRsStay},
		{"MapPCRsInTime", testMapPCRsInTime},
		{"WithHostPCRs", testWithHostPCRs},
		{"BootEvidence", testBootEvidence},
		{"HashSequence", testHashSequence},
		{"HashWithHostPCRs", testHashWithHostPCRs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &card{t: t, dev: open(t)}
			defer c.close()
			c.openSlot()
			tc.run(t, c)
		})
	}
}

// Runs of virtual machines.
var (
	runA = coproc.RunID{0: 0xa}
	runB = coproc.RunID{0: 0xb}
)

// card is the card under test and its open slot.
type card struct {
	t    *testing.T
	dev  coproc.Device
	slot coproc.Slot
	tpm  *tpmtest.TPM
}

func (c *card) openSlot() {
	c.t.Helper()
	s, err := c.dev.OpenSlot(c.t.Context(), SlotName)
	if err != nil {
		c.t.Fatalf("OpenSlot: %v", err)
	}
	c.slot = s
	c.tpm = tpmtest.New(c.t, c.send)
}

func (c *card) close() {
	if err := c.dev.Close(); err != nil {
		c.t.Errorf("Close: %v", err)
	}
}

// reopen closes the slot and opens it again.
func (c *card) reopen() {
	c.t.Helper()
	if err := c.slot.Close(); err != nil {
		c.t.Fatalf("Close: %v", err)
	}
	c.openSlot()
}

// send runs a command at locality 0.
func (c *card) send(cmd []byte) ([]byte, error) { return c.sendAt(0, cmd) }

func (c *card) sendAt(locality uint8, cmd []byte) ([]byte, error) {
	return c.execute(context.Background(), coproc.Command{Locality: locality, Bytes: cmd})
}

func (c *card) execute(ctx context.Context, cmd coproc.Command) ([]byte, error) {
	resp := make([]byte, coproc.MaxTransfer)
	n, err := c.slot.Execute(ctx, cmd, resp)
	return resp[:n], err
}

// powerOn powers on and checks whether the TPM resumed.
func (c *card) powerOn(run coproc.RunID, resumed bool) {
	c.t.Helper()
	r, err := c.slot.PowerOn(c.t.Context(), run)
	if err != nil {
		c.t.Fatalf("PowerOn: %v", err)
	}
	if r.Resumed != resumed {
		c.t.Fatalf("PowerOn: resumed %t, want %t", r.Resumed, resumed)
	}
}

// start powers on for run A and starts the TPM.
func (c *card) start() {
	c.t.Helper()
	c.powerOn(runA, false)
	c.tpm.Startup()
}

func (c *card) reset() {
	c.t.Helper()
	if err := c.slot.Reset(c.t.Context()); err != nil {
		c.t.Fatalf("Reset: %v", err)
	}
}
