// SPDX-License-Identifier: Apache-2.0

package card

import (
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
)

// BenchmarkResume is a short command to a parked slot, from its client's side, with
// a spare worker at hand; "card" is from when the card sees it to a worker that
// takes it.
func BenchmarkResume(b *testing.B) {
	r := openCard(b, realConfig(b))
	r.create("a")
	c := r.open("a")
	startup(b, c)
	before := r.Stats().Resumes
	for b.Loop() {
		b.StopTimer()
		must(b, r.on(abi.OpSlotPark, "a", nil))
		for deadline := time.Now().Add(patience); r.pool.Spares() < r.cfg.Spares && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond) // the spare has started
		b.StartTimer()
		if _, err := (tpm2.GetRandom{BytesRequested: 8}).Execute(c); err != nil {
			b.Fatal(err)
		}
	}
	after := r.Stats().Resumes
	n := uint64(0)
	for i := range after.Count {
		n += after.Count[i] - before.Count[i]
	}
	if n > 0 {
		b.ReportMetric(float64(after.Sum-before.Sum)/float64(n), "card-ns/op")
	}
}

// BenchmarkDurableWrite is what the card adds to a command that changes NV.
func BenchmarkDurableWrite(b *testing.B) {
	r := openCard(b, fakeConfig(b))
	r.create("a")
	c := r.open("a")
	for b.Loop() {
		if _, err := c.run("add"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate makes a slot with one endorsement key.
func BenchmarkCreate(b *testing.B) {
	cfg := realConfig(b)
	cfg.MaxSlots = 4096
	r := openCard(b, cfg)
	for b.Loop() {
		if _, err := r.tryCreate("s" + time.Now().Format("150405.000000000")); err != nil {
			b.Fatal(err)
		}
	}
}
