// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"errors"
	"sync"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

func testOpenSlot(t *testing.T, c *card) {
	ctx := t.Context()
	if _, err := c.dev.OpenSlot(ctx, SlotName); !errors.Is(err, coproc.ErrInUse) {
		t.Errorf("second OpenSlot: %v, want ErrInUse", err)
	}
	if _, err := c.dev.OpenSlot(ctx, "no-such-slot"); !errors.Is(err, coproc.ErrNotFound) {
		t.Errorf("OpenSlot(no-such-slot): %v, want ErrNotFound", err)
	}
	c.reopen()
	c.start()
	if err := c.dev.Close(); err != nil {
		t.Errorf("device Close: %v", err)
	}
	if _, err := c.dev.OpenSlot(ctx, SlotName); !errors.Is(err, coproc.ErrClosed) {
		t.Errorf("OpenSlot after Close: %v, want ErrClosed", err)
	}
	if _, err := c.dev.Info(ctx); !errors.Is(err, coproc.ErrClosed) {
		t.Errorf("Info after Close: %v, want ErrClosed", err)
	}
}

// checkClosed checks that every method says so.
func checkClosed(c *card) {
	c.t.Helper()
	ctx := c.t.Context()
	_, powerOn := c.slot.PowerOn(ctx, runA)
	_, execute := c.send(cmdGetRandom)
	_, health := c.slot.Health(ctx)
	for op, err := range map[string]error{
		"PowerOn": powerOn, "Reset": c.slot.Reset(ctx), "Execute": execute, "Health": health,
	} {
		if !errors.Is(err, coproc.ErrClosed) {
			c.t.Errorf("%s after Close: %v, want ErrClosed", op, err)
		}
	}
	if err := c.slot.Cancel(); err != nil {
		c.t.Errorf("Cancel after Close: %v", err)
	}
}

func testCloseIdempotent(t *testing.T, c *card) {
	c.start()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := c.slot.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	checkClosed(c)
}

func testCloseRunning(t *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	started := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		close(started)
		for {
			_, err := tpmtest.RSAKeyCommand(w.key, 2048).Execute(c.tpm)
			if errors.Is(err, coproc.ErrClosed) {
				return
			}
			canceledOrDone(t, err)
		}
	})
	<-started
	if err := c.slot.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	checkClosed(c)
	c.openSlot()
	c.powerOn(runA, true)
	w.checkAll(c)
}
