// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/coproctest/tpmtest"
)

// interruptPatience is how late an interrupt may be.
const interruptPatience = 10 * time.Second

// checkInterrupts checks that each completion comes with an interrupt: the
// driver would find them without, slowly.
func (r *rig) checkInterrupts(when string) {
	r.t.Helper()
	const commands = 32
	before := r.taps.count.Load()
	for range commands {
		r.tpm.Random(16)
	}
	// A driver that looked by itself may be ahead of the last interrupt.
	for deadline := time.Now().Add(interruptPatience); r.taps.count.Load() < before+commands; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Errorf("%s: %d interrupts for %d commands", when, r.taps.count.Load()-before, commands)
			return
		}
	}
}

func testInterrupts(t *testing.T) {
	r := newRig(t, viaKernel())
	r.checkInterrupts("at first")
	if n := r.restarts(); n != 0 {
		t.Errorf("%d restarts, want none", n)
	}
}

// tpmDigest is a PCR after one event.
func tpmDigest(event string) tpmtest.Digest { return tpmtest.Extended(tpmtest.Digest{}, event) }

// testResetWhileRunning: a function level reset costs the slot its worker, and
// the guest nothing.
func testResetWhileRunning(t *testing.T) {
	r := newRig(t, viaKernel())
	r.tpm.Extend(10, "event")
	key := r.tpm.CreateSRK()
	for range 3 {
		reset := make(chan error, 1)
		go func() {
			time.Sleep(20 * time.Millisecond) // the command runs by then, or it ended: both must do
			reset <- r.taps.transport().Reset()
		}()
		if _, err := tpmtest.RSAKeyCommand(key, 2048).Execute(r.tpm); err != nil {
			t.Fatalf("Create over a reset: %v", err)
		}
		if err := <-reset; err != nil {
			t.Fatalf("Reset: %v", err)
		}
		r.checkInterrupts("after a reset")
		if got, want := r.tpm.PCR(10), tpmDigest("event"); got != want {
			t.Fatalf("PCR 10 = %x, want %x", got, want)
		}
	}
	if n := r.restarts(); n < 3 {
		t.Errorf("%d restarts, want at least 3: a reset was not noticed", n)
	}
}

// testSecondDriver: the kernel hands the card out once.
func testSecondDriver(t *testing.T) {
	r := newRig(t, viaKernel())
	_, err := viaKernel()(func() {})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second Open: %v, want EBUSY with an explanation", err)
	}
	r.tpm.Random(16)
}
