// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/coproc/internal/slot"
)

// rig is a card with a started TPM.
type rig struct {
	t    testing.TB
	d    *coprocd
	card *Card
	slot coproc.Slot
	tpm  *tpmtest.TPM
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, d: startCoprocd(t)}
	r.card = r.d.open()
	r.d.create(r.card, coproctest.SlotName)
	r.slot, r.tpm = startSlot(t, r.card, coproctest.SlotName)
	return r
}

// startSlot opens a slot and starts its TPM.
func startSlot(t testing.TB, c *Card, name string) (coproc.Slot, *tpmtest.TPM) {
	t.Helper()
	s, err := c.OpenSlot(t.Context(), name)
	if err != nil {
		t.Fatalf("OpenSlot: %v", err)
	}
	if _, err := s.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatalf("PowerOn: %v", err)
	}
	tpm := tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		resp := make([]byte, coproc.MaxTransfer)
		n, err := s.Execute(t.Context(), coproc.Command{Bytes: cmd}, resp)
		return resp[:n], err
	})
	tpm.Startup()
	return s, tpm
}

// post writes a word to the card behind the driver's back.
func (r *rig) post(off uint64, v uint32) {
	r.t.Helper()
	r.card.fn.mu.Lock()
	defer r.card.fn.mu.Unlock()
	if err := r.card.fn.write(off, v); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) killEngine() {
	for _, pid := range r.d.engines() {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// TestRecovery: whatever part of the card is lost, the guest's TPM goes on in
// the state of the last answer, and no command is executed twice.
func TestRecovery(t *testing.T) {
	bell := func(queue int) uint64 { return abi.DoorbellOffset(queue) + abi.DoorbellTail }
	for _, tc := range []struct {
		name string
		lose func(r *rig)
	}{
		{"engine killed", (*rig).killEngine},
		{"slot queue broken", func(r *rig) { r.post(bell(1), 99) }},
		{"admin queue broken and engine killed", func(r *rig) { r.post(bell(0), 99); r.killEngine() }},
		{"function disabled", func(r *rig) { r.post(abi.RegControl, 0) }},
		{"function reset", func(r *rig) { r.post(abi.RegControl, abi.ControlReset) }},
		{"card killed and started", func(r *rig) { r.d.end(unix.SIGKILL); r.d.start() }},
		{"card ended and started", func(r *rig) { r.d.end(unix.SIGTERM); r.d.start() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.tpm.DefineCounter(tpmtest.NVBase, false)
			r.tpm.Increment(tpmtest.NVBase)
			start := binary.BigEndian.Uint64(r.tpm.ReadNV(tpmtest.NVBase, 8))
			var pcr tpmtest.Digest
			for i := range uint64(4) {
				r.tpm.Extend(10, "event")
				pcr = tpmtest.Extended(pcr, "event")
				tc.lose(r)
				r.tpm.Increment(tpmtest.NVBase)
				if got := r.tpm.PCR(10); got != pcr {
					t.Fatalf("PCR 10 = %x, want %x", got, pcr)
				}
				if got := binary.BigEndian.Uint64(r.tpm.ReadNV(tpmtest.NVBase, 8)); got != start+i+1 {
					t.Fatalf("counter = %d, want %d", got, start+i+1)
				}
			}
			if n := r.slot.(*slot.Slot).Restarts(); n < 4 {
				t.Errorf("%d restarts, want at least 4", n)
			}
		})
	}
}

// TestCardGone: with the card gone for good the slot fails, and says so.
func TestCardGone(t *testing.T) {
	r := newRig(t)
	r.d.end(unix.SIGKILL)
	resp := make([]byte, coproc.MaxTransfer)
	n, err := r.slot.Execute(t.Context(), coproc.Command{Bytes: cmdGetRandom}, resp)
	if !errors.Is(err, coproc.ErrFailed) || n != 10 || binary.BigEndian.Uint32(resp[6:]) != 0x101 {
		t.Errorf("Execute without a card = %x, %v, want TPM_RC_FAILURE and ErrFailed", resp[:n], err)
	}
	r.d.start()
	if err := r.slot.Reset(t.Context()); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	r.tpm.Startup()
}

// BenchmarkGetRandom measures the round trip of a short command. p50-µs is
// the median.
func BenchmarkGetRandom(b *testing.B) {
	r := newRig(b)
	resp := make([]byte, coproc.MaxTransfer)
	var all []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if _, err := r.slot.Execute(b.Context(), coproc.Command{Bytes: cmdGetRandom}, resp); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-µs")
}
