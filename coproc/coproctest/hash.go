// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"bytes"
	"errors"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

func (c *card) hash(data []byte) error {
	c.t.Helper()
	h, ok := c.slot.(coproc.Hasher)
	if !ok {
		c.t.Fatalf("%T is no Hasher", c.slot)
	}
	return h.HashSequence(c.t.Context(), data)
}

// launch runs a hash sequence that has to succeed.
func (c *card) launch(data []byte) {
	c.t.Helper()
	if err := c.hash(data); err != nil {
		c.t.Fatalf("HashSequence of %d bytes: %v", len(data), err)
	}
}

func (c *card) wantPCR(when string, pcr int, want tpmtest.Digest) {
	c.t.Helper()
	if got := c.tpm.PCR(pcr); got != want {
		c.t.Errorf("%s: PCR %d = %x, want %x", when, pcr, got, want)
	}
}

// testHashSequence: a sequence of any size sets PCR 0 before Startup and PCR 17 after
// it, for this run, with other workers too.
func testHashSequence(t *testing.T, c *card) {
	if err := c.hash(nil); !errors.Is(err, coproc.ErrUnsupported) {
		t.Errorf("HashSequence before PowerOn: %v, want ErrUnsupported", err)
	}
	c.powerOn(runA, false)
	c.launch([]byte("firmware"))
	c.reopen()
	c.powerOn(runA, true)
	c.tpm.Startup()
	hcrtm := tpmtest.Extended(tpmtest.Digest{31: 4}, "firmware")
	c.wantPCR("after an H-CRTM", 0, hcrtm)
	for _, size := range []int{0, 1, 4088, 4089, 10000, coproc.MaxHash} {
		data := bytes.Repeat([]byte{'x'}, size)
		c.launch(data)
		c.wantPCR("after a launch", 17, tpmtest.Extended(tpmtest.Digest{}, string(data)))
	}
	if err := c.hash(make([]byte, coproc.MaxHash+1)); !errors.Is(err, coproc.ErrUnsupported) {
		t.Errorf("HashSequence of too much: %v, want ErrUnsupported", err)
	}
	w := makeWorld(c)
	c.launch([]byte("last"))
	last := tpmtest.Extended(tpmtest.Digest{}, "last")
	w.checkAll(c)
	c.reopen()
	c.powerOn(runA, true)
	w.checkAll(c)
	c.wantPCR("with another worker", 17, last)
	c.wantPCR("with another worker", 0, hcrtm)
	c.reset()
	w.checkCycled(c)
	c.wantPCR("after a reset", 0, tpmtest.Digest{})
}

// testHashWithHostPCRs: a sequence that would set PCR 0 is refused while that is the
// host's, and asks the host first if nobody has.
func testHashWithHostPCRs(t *testing.T, c *card) {
	host := hostPCRs(t, 0x70)
	var away error
	c.withHostPCRs(&host, &away)
	c.powerOn(runA, false)
	if err := c.hash([]byte("firmware")); !errors.Is(err, coproc.ErrUnsupported) {
		t.Errorf("HashSequence before Startup: %v, want ErrUnsupported", err)
	}
	c.tpm.Startup()
	c.launch([]byte("kernel"))
	c.wantPCR("after a launch", 17, tpmtest.Extended(tpmtest.Digest{}, "kernel"))
	c.checkPCRs("after a launch", &host)
	away = errors.New("no host")
	c.reset()
	if err := c.hash([]byte("firmware")); !errors.Is(err, coproc.ErrFailed) || !errors.Is(err, away) {
		t.Errorf("HashSequence without the host's PCRs: %v, want ErrFailed", err)
	}
}
