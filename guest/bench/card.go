// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"hwvtpm/coproc/abi"
)

// CardReport is about many slots behind one coprocd.
type CardReport struct {
	Rates   []RateRow   `json:"rates"`
	Memory  CardMemory  `json:"memory"`
	Resume  ResumeRow   `json:"resume"`
	Creates []CreateRow `json:"creates"`
}

// CreateRow is the making of slots, one after the other.
type CreateRow struct {
	What  string        `json:"what"`
	Slots int           `json:"slots"`
	Each  Dist          `json:"each"`
	Total time.Duration `json:"total_ns"`
}

// ResumeRow compares the first command of a parked slot with any other.
type ResumeRow struct {
	Live   Dist `json:"live"`   // GetRandom on a slot with a worker
	Parked Dist `json:"parked"` // on one without: a spare worker takes it over
	Open   Dist `json:"open"`   // proof, worker and power-on of a closed slot
}

// CardMemory is what slots take, in bytes of PSS.
type CardMemory struct {
	Live         int   `json:"live"`          // slots with a worker
	PerLive      int64 `json:"per_live"`      // a worker, a mean over all
	PerSwtpm     int64 `json:"per_swtpm"`     // an swtpm process, a mean over as many
	Card         int64 `json:"card"`          // coprocd itself, with the live slots
	Parked       int   `json:"parked"`        // slots that are open without a worker
	PerParked    int64 `json:"per_parked"`    // growth of coprocd for each
	CardAtParked int64 `json:"card_atparked"` // coprocd itself, with these
}

// manySlots is how the benchmark calls its slots.
func manySlots(n int) string { return fmt.Sprintf("slot-%d", n) }

func measureCard(ctx context.Context, p programs, dir string, plan Plan, progress func(string, ...any)) (r CardReport, err error) {
	for _, step := range []struct {
		name string
		f    func(dir string) error
	}{
		{"commands per second", func(d string) error { r.Rates, err = measureRates(ctx, p, d, plan); return err }},
		{"memory of live slots", func(d string) error { return measureLiveMemory(ctx, p, d, plan, &r.Memory) }},
		{"opening and resuming", func(d string) error { r.Resume, err = measureResume(ctx, p, d, plan); return err }},
		{"many slots", func(d string) error { return measureMany(ctx, p, d, plan, &r) }},
	} {
		progress("card: %s", step.name)
		if err := step.f(filepath.Join(dir, step.name[:4])); err != nil {
			return r, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return r, nil
}

// createSlots makes slots from number first on and times each.
func createSlots(ctx context.Context, h *cardHost, first, n int, keys abi.Keys) (CreateRow, error) {
	var samples []time.Duration
	begin := time.Now()
	for i := range n {
		if err := ctx.Err(); err != nil {
			return CreateRow{}, context.Cause(ctx)
		}
		at := time.Now()
		if err := h.create(manySlots(first+i), keys); err != nil {
			return CreateRow{}, err
		}
		samples = append(samples, time.Since(at))
	}
	row := CreateRow{Slots: n, Total: time.Since(begin)}
	var s series
	s.add(samples)
	row.Each = s.dist()
	return row, nil
}

// measureResume parks a slot and wakes it, again and again. The pause lets the
// card start the next spare worker, as it would have time to.
func measureResume(ctx context.Context, p programs, dir string, plan Plan) (r ResumeRow, err error) {
	h, err := startCard(ctx, p, dir, "--park-after", "1h")
	if err != nil {
		return r, err
	}
	defer h.close()
	if err := h.create("one", 0); err != nil {
		return r, err
	}
	t, err := h.open("one")
	if err != nil {
		return r, err
	}
	if err := startup(t); err != nil {
		return r, err
	}
	getRandom := []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 32}
	var live, parked, open []time.Duration
	for range plan.Starts {
		info, err := h.admin.Show(h.ctx, "one")
		if err == nil {
			err = h.admin.Park(h.ctx, info)
		}
		if err != nil {
			return r, err
		}
		if err := awaitLife(h, "one", abi.LifeParked); err != nil {
			return r, err
		}
		time.Sleep(spareTime)
		for _, samples := range []*[]time.Duration{&parked, &live} {
			one, err := batch(ctx, t, getRandom, 0, 1)
			if err != nil {
				return r, err
			}
			*samples = append(*samples, one...)
		}
	}
	for range plan.Starts {
		t.close()
		time.Sleep(spareTime)
		at := time.Now()
		if t, err = h.open("one"); err != nil {
			return r, err
		}
		open = append(open, time.Since(at))
	}
	t.close()
	return ResumeRow{Live: oneRound(live), Parked: oneRound(parked), Open: oneRound(open)}, nil
}

// spareTime is more than the start of a worker takes.
const spareTime = 60 * time.Millisecond

func oneRound(samples []time.Duration) Dist {
	var s series
	s.add(samples)
	return s.dist()
}

// awaitLife waits until a slot is in this state.
func awaitLife(h *cardHost, name string, want abi.SlotLife) error {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		info, err := h.admin.Show(h.ctx, name)
		if err != nil {
			return err
		}
		if info.Life == want {
			return nil
		}
		if time.Since(begin) > hang {
			return fmt.Errorf("bench: slot %s is %v, not %v", name, info.Life, want)
		}
	}
}
