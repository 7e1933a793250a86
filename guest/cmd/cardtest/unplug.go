// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// cmdGetRandom is TPM2_GetRandom of 32 bytes.
var cmdGetRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 32}

// unplugged unplugs the card. The kernel waits until the driver has let go of
// it, without anybody using the card.
func (r *rig) unplugged() {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- unplug() }()
	select {
	case err := <-done:
		if err != nil {
			r.t.Fatalf("unplug: %v", err)
		}
	case <-time.After(hang):
		r.t.Fatal("the driver keeps a card that is unplugged")
	}
	if err := r.taps.transport().Err(); err == nil {
		r.t.Error("the transport does not know that its card is gone")
	}
}

// checkGone checks that the guest is told so, and that it goes on when the card
// is back.
func (r *rig) checkGone() {
	r.t.Helper()
	resp, err := r.execute(cmdGetRandom)
	if !errors.Is(err, coproc.ErrFailed) || len(resp) != 10 || binary.BigEndian.Uint32(resp[6:]) != 0x101 {
		r.t.Errorf("Execute without a card = %x, %v, want TPM_RC_FAILURE and ErrFailed", resp, err)
	}
	if err := plug(); err != nil {
		r.t.Fatalf("plug: %v", err)
	}
	if err := r.slot.Reset(r.t.Context()); err != nil {
		r.t.Fatalf("Reset with the card back: %v", err)
	}
	r.tpm.Startup()
	r.checkInterrupts("with the card back")
}

func testUnplug(t *testing.T) {
	r := newRig(t, viaKernel())
	r.tpm.Random(16)
	r.unplugged()
	r.checkGone()
}

func testUnplugWhileRunning(t *testing.T) {
	r := newRig(t, viaKernel())
	key := r.tpm.CreateSRK()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := tpmtest.RSAKeyCommand(key, 2048).Execute(r.tpm); err != nil {
				return
			}
		}
	}()
	time.Sleep(50 * time.Millisecond) // for the unplugging to meet a command
	r.unplugged()
	<-ended
	r.checkGone()
}
