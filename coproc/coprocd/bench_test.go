// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"slices"
	"testing"
	"time"

	"hwvtpm/coproc"
)

// BenchmarkExecute measures a short command through the driver to a slot of the
// real card and back; p50-µs is the median.
func BenchmarkExecute(b *testing.B) {
	d := startDaemon(b)
	s, err := d.open(d.create("vm")).OpenSlot(b.Context(), "vm")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.PowerOn(b.Context(), coproc.RunID{1}); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	resp := make([]byte, coproc.MaxTransfer)
	startup := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	if _, err := s.Execute(ctx, coproc.Command{Bytes: startup}, resp); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		if n, err := s.Execute(ctx, coproc.Command{Bytes: testCommand}, resp); err != nil || n != 44 {
			b.Fatalf("%d bytes, %v", n, err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
}
