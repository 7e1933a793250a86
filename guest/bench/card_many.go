// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"hwvtpm/coproc/abi"
)

// measureLiveMemory puts the same load on slots and on as many swtpms, one side
// after the other, with all processes of a side alive when memory is read.
func measureLiveMemory(ctx context.Context, p programs, dir string, plan Plan, m *CardMemory) error {
	m.Live = plan.LiveSlots
	ours, err := rateSlots(ctx, p, filepath.Join(dir, "ours"), m.Live)
	if err != nil {
		return err
	}
	m.PerLive, m.Card, err = slotMemory(ctx, ours, plan)
	closeAll(ours)
	if err != nil {
		return err
	}
	theirs, err := rateSwtpms(ctx, filepath.Join(dir, "swtpm"), m.Live)
	if err != nil {
		return err
	}
	defer closeAll(theirs)
	m.PerSwtpm, _, err = slotMemory(ctx, theirs, plan)
	return err
}

// slotMemory gives the mean PSS of the processes that are the TPMs, and that of
// the process that all share, if there is one.
func slotMemory(ctx context.Context, targets []target, plan Plan) (each, shared int64, err error) {
	all, err := scripts(targets[0])
	if err != nil {
		return 0, 0, err
	}
	for _, t := range targets {
		for _, s := range all {
			if _, err := play(ctx, t, s, 0, max(1, plan.LiveLoad/len(all))); err != nil {
				return 0, 0, err
			}
		}
	}
	var sum int64
	for _, t := range targets {
		pids := t.pids()
		if len(pids) == 0 || pids[0] == 0 {
			return 0, 0, fmt.Errorf("bench: a slot has no process")
		}
		m, err := readMemory(pids[0])
		if err != nil {
			return 0, 0, err
		}
		sum += m.PSS
		if len(pids) > 1 && shared == 0 {
			m, err := readMemory(pids[1])
			if err != nil {
				return 0, 0, err
			}
			shared = m.PSS
		}
	}
	return sum / int64(len(targets)), shared, nil
}

// measureMany makes many slots, opens them all, which parks all but a few, and
// sees what the parked ones take.
func measureMany(ctx context.Context, p programs, dir string, plan Plan, r *CardReport) error {
	h, err := startCard(ctx, p, dir, "--park-after", "1h", "--max-live", "4")
	if err != nil {
		return err
	}
	err = measureCreates(ctx, h, plan, r)
	h.close()
	if err != nil {
		return err
	}
	// A card that has made no slot since its start: what that took is gone.
	key := h.key
	if h, err = startCard(ctx, p, dir, "--park-after", "1h", "--max-live", "4"); err != nil {
		return err
	}
	defer h.close()
	h.key = key
	return measureParked(ctx, h, plan.ManySlots, &r.Memory)
}

func measureCreates(ctx context.Context, h *cardHost, plan Plan, r *CardReport) error {
	full, err := createSlots(ctx, h, plan.ManySlots, plan.FullSlots, abi.DefaultKeys)
	if err != nil {
		return err
	}
	full.What = "RSA, P-256 and P-384 endorsement keys, storage root key"
	many, err := createSlots(ctx, h, 0, plan.ManySlots, abi.KeyP256EK)
	if err != nil {
		return err
	}
	many.What = "P-256 endorsement key"
	r.Creates = []CreateRow{full, many}
	return nil
}

func measureParked(ctx context.Context, h *cardHost, n int, m *CardMemory) error {
	before, err := settledMemory(h)
	if err != nil {
		return err
	}
	var open []*cardTarget
	defer func() {
		for _, t := range open {
			_ = t.slot.Close()
		}
	}()
	for i := range n {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t, err := h.open(manySlots(i))
		if err != nil {
			return err
		}
		open = append(open, t)
	}
	health, err := h.admin.Health(h.ctx)
	if err != nil {
		return err
	}
	after, err := settledMemory(h)
	if err != nil {
		return err
	}
	m.Parked, m.CardAtParked = int(health.Parked), after
	if m.Parked == 0 {
		return fmt.Errorf("bench: of %d open slots none is parked", n)
	}
	m.PerParked = (after - before) / int64(m.Parked)
	return nil
}

// settledMemory is the PSS of coprocd after a pause in which its heap shrinks.
func settledMemory(h *cardHost) (int64, error) {
	time.Sleep(time.Second)
	m, err := readMemory(h.proc.cmd.Process.Pid)
	return m.PSS, err
}
