// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

func testExecuteBeforePowerOn(t *testing.T, c *card) {
	if resp, err := c.send(cmdGetRandom); err == nil {
		t.Errorf("Execute before PowerOn = %x, want an error", resp)
	}
	if err := c.slot.Reset(t.Context()); err == nil {
		t.Errorf("Reset before PowerOn succeeded")
	}
}

// testMalformed: whatever the bytes, the guest gets a TPM response and the
// TPM goes on.
func testMalformed(t *testing.T, c *card) {
	c.start()
	sized := func(n int) []byte {
		b := make([]byte, n)
		copy(b, cmdGetRandom)
		binary.BigEndian.PutUint32(b[2:], uint32(n))
		return b
	}
	for _, tc := range []struct {
		name string
		cmd  []byte
	}{
		{"empty", nil},
		{"one byte", []byte{0x80}},
		{"nine bytes", cmdGetRandom[:9]},
		{"header only", sized(12)[:10]},
		{"size too small", []byte{0x80, 1, 0, 0, 0, 9, 0, 0, 1, 0x7b, 0, 16}},
		{"size too large", []byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0x7b, 0, 16}},
		{"bad tag", []byte{0, 0, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 16}},
		{"bad code", []byte{0x80, 1, 0, 0, 0, 10, 0xff, 0xff, 0xff, 0xff}},
		{"sessions without any", []byte{0x80, 2, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 16}},
		{"trailing bytes", sized(coproc.MaxTransfer)},
		{"one byte too many", sized(coproc.MaxTransfer + 1)},
		{"far too many", sized(100_000)},
	} {
		if rc := c.tpm.Code(tc.cmd); rc == tpm2.TPMRCSuccess {
			t.Errorf("%s: success", tc.name)
		}
		if n := len(c.tpm.Random(8)); n != 8 {
			t.Errorf("%s: then GetRandom gives %d bytes, want 8", tc.name, n)
		}
	}
}

// testShortBuffer: a response that has no room is refused before the command
// runs, since its effect could not be told.
func testShortBuffer(t *testing.T, c *card) {
	c.start()
	tpm := tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		n, err := c.slot.Execute(t.Context(), coproc.Command{Bytes: cmd}, make([]byte, 100))
		return make([]byte, n), err
	})
	if _, err := tpmtest.ExtendCommand(worldPCR, "x").Execute(tpm); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("Execute with a short buffer: %v, want io.ErrShortBuffer", err)
	}
	if got := c.tpm.PCR(worldPCR); got != (tpmtest.Digest{}) {
		t.Errorf("PCR %d = %x: the refused command ran", worldPCR, got)
	}
}

func testLocality(t *testing.T, c *card) {
	c.start()
	at := func(locality uint8) error {
		tpm := tpmtest.New(t, func(cmd []byte) ([]byte, error) { return c.sendAt(locality, cmd) })
		_, err := tpm2.PCRReset{PCRHandle: tpm2.AuthHandle{Handle: 20, Auth: tpm2.PasswordAuth(nil)}}.Execute(tpm)
		return err
	}
	// PC Client profile: PCR 20 can be reset at localities 2 and 4.
	if err := at(0); !errors.Is(err, tpm2.TPMRCLocality) {
		t.Errorf("PCR_Reset(20) at locality 0: %v, want TPM_RC_LOCALITY", err)
	}
	if err := at(2); err != nil {
		t.Errorf("PCR_Reset(20) at locality 2: %v", err)
	}
	if err := at(0); !errors.Is(err, tpm2.TPMRCLocality) {
		t.Errorf("PCR_Reset(20) at locality 0 after 2: %v, want TPM_RC_LOCALITY", err)
	}
	if _, err := c.sendAt(5, cmdGetRandom); err == nil {
		t.Errorf("locality 5 was taken")
	}
}

func testConcurrent(t *testing.T, c *card) {
	c.start()
	c.tpm.DefineCounter(tpmtest.NVBase, false)
	c.tpm.Increment(tpmtest.NVBase)
	start := binary.BigEndian.Uint64(c.tpm.ReadNV(tpmtest.NVBase, 8))
	const callers, each = 4, 10
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			tpm := tpmtest.New(failLater{t}, c.send)
			for range each {
				tpm.Increment(tpmtest.NVBase)
				tpm.Extend(i, "x")
				if len(tpm.Random(16)) != 16 {
					t.Error("GetRandom gave another caller's response")
				}
				c.slot.Cancel()
			}
		})
	}
	wg.Wait()
	if got := binary.BigEndian.Uint64(c.tpm.ReadNV(tpmtest.NVBase, 8)); got != start+callers*each {
		t.Errorf("counter = %d, want %d", got, start+callers*each)
	}
	var want tpmtest.Digest
	for range each {
		want = tpmtest.Extended(want, "x")
	}
	for i := range callers {
		if got := c.tpm.PCR(i); got != want {
			t.Errorf("PCR %d = %x, want %x", i, got, want)
		}
	}
}

// failLater lets helpers report from another goroutine than the test's, where
// Fatalf is not allowed.
type failLater struct{ testing.TB }

func (f failLater) Fatalf(format string, args ...any) { f.Errorf(format, args...) }

func testHealth(t *testing.T, c *card) {
	ctx := t.Context()
	c.start()
	before, err := c.slot.Health(ctx)
	if err != nil {
		t.Fatalf("Health: %v", err)
	}
	c.tpm.DefineNV(tpmtest.NVBase, 4)
	after, err := c.slot.Health(ctx)
	if err != nil {
		t.Fatalf("Health: %v", err)
	}
	if after.Commands <= before.Commands || after.Generation <= before.Generation {
		t.Errorf("Health went from %+v to %+v over an NV definition", before, after)
	}
	if got := after.State.String(); got != "running" || after.Restarts != 0 || after.EngineVersion == 0 {
		t.Errorf("Health = %+v", after)
	}
	info, err := c.dev.Info(ctx)
	if err != nil || info.MaxTransfer != coproc.MaxTransfer || info.Driver == "" {
		t.Errorf("Info = %+v, %v", info, err)
	}
	if bytes.Equal(c.tpm.Random(8), make([]byte, 8)) {
		t.Errorf("GetRandom gave zeros")
	}
}
