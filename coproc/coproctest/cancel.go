// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// canceledOrDone checks the outcome of a command that somebody canceled: it
// may be too late for that.
func canceledOrDone(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, tpm2.TPMRCCanceled) {
		t.Errorf("canceled command: %v, want success or TPM_RC_CANCELED", err)
	}
}

func testCancelIdle(t *testing.T, c *card) {
	c.start()
	srk := c.tpm.CreateSRK()
	for range 3 {
		if err := c.slot.Cancel(); err != nil {
			t.Errorf("Cancel when idle: %v", err)
		}
	}
	// Making an RSA key looks for a cancel, and there must be none left.
	if _, err := tpmtest.RSAKeyCommand(srk, 1024).Execute(c.tpm); err != nil {
		t.Errorf("Create after a cancel that met nothing: %v", err)
	}
}

func testCancelRunning(t *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				c.slot.Cancel()
			}
		}
	})
	for range 3 {
		_, err := tpmtest.RSAKeyCommand(w.key, 2048).Execute(c.tpm)
		canceledOrDone(t, err)
	}
	close(stop)
	wg.Wait()
	w.checkAll(c)
}

func testCancelByContext(t *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	tpm := tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		return c.execute(ctx, coproc.Command{Bytes: cmd})
	})
	_, err := tpmtest.RSAKeyCommand(w.key, 2048).Execute(tpm)
	if !errors.Is(err, coproc.ErrCanceled) { // ended before it began
		canceledOrDone(t, err)
	}
	<-ctx.Done()
	if _, err := c.execute(ctx, coproc.Command{Bytes: cmdGetRandom}); !errors.Is(err, coproc.ErrCanceled) {
		t.Errorf("Execute after the end of its context: %v, want ErrCanceled", err)
	}
	w.checkAll(c)
}

func testTimeout(t *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	tpm := tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		return c.execute(t.Context(), coproc.Command{Bytes: cmd, Timeout: time.Millisecond})
	})
	_, err := tpmtest.RSAKeyCommand(w.key, 3072).Execute(tpm)
	canceledOrDone(t, err)
	w.checkAll(c)
}
