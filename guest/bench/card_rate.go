// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hwvtpm/guest/workload"
)

// RateRow is what so many TPMs do in a second when all have a client that sends
// one command after the other.
type RateRow struct {
	Slots   int     `json:"slots"`
	Command string  `json:"command"`
	Ours    float64 `json:"ours"`  // commands per second, all slots of one card together
	Swtpm   float64 `json:"swtpm"` // as many swtpm processes
	Ratio   float64 `json:"ratio"` // ours / swtpm
}

// rateCommands are what is measured: one that is all transport, one that is
// all engine.
var rateCommands = []string{workload.GetRandom, workload.SignECDSA}

func measureRates(ctx context.Context, p programs, dir string, plan Plan) ([]RateRow, error) {
	most := slices.Max(plan.RateSlots)
	ours, err := rateSlots(ctx, p, filepath.Join(dir, "ours"), most)
	if err != nil {
		return nil, err
	}
	defer closeAll(ours)
	theirs, err := rateSwtpms(ctx, filepath.Join(dir, "swtpm"), most)
	if err != nil {
		return nil, err
	}
	defer closeAll(theirs)
	var rows []RateRow
	for _, n := range plan.RateSlots {
		for _, command := range rateCommands {
			row, err := rateRow(ctx, ours[:n], theirs[:n], command, plan)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func closeAll(targets []target) {
	for _, t := range slices.Backward(targets) {
		t.close()
	}
}

// rateSlots gives open slots of one card, of which the first owns it.
func rateSlots(ctx context.Context, p programs, dir string, n int) ([]target, error) {
	h, err := startCard(ctx, p, dir, "--park-after", "1h", "--max-live", fmt.Sprint(n+8))
	if err != nil {
		return nil, err
	}
	var all []target
	for i := range n {
		err := h.create(manySlots(i), 0)
		var t *cardTarget
		if err == nil {
			t, err = h.open(manySlots(i))
		}
		if err == nil {
			t.owns = i == 0
			all = append(all, t)
			err = startup(t)
		}
		if err != nil {
			closeAll(all)
			h.close()
			return nil, err
		}
	}
	return all, nil
}

func rateSwtpms(ctx context.Context, dir string, n int) ([]target, error) {
	var all []target
	for i := range n {
		d := filepath.Join(dir, fmt.Sprint(i))
		err := os.MkdirAll(d, 0o700)
		var t target
		if err == nil {
			t, err = openSwtpm(ctx, d)
		}
		if err == nil {
			all = append(all, t)
			err = startup(t)
		}
		if err != nil {
			closeAll(all)
			return nil, err
		}
	}
	return all, nil
}

// rateRow lets both sides take turns. A rate is the median over the rounds.
func rateRow(ctx context.Context, ours, theirs []target, command string, plan Plan) (RateRow, error) {
	var rates [2][]float64
	for range plan.RateRounds {
		for i, side := range [][]target{ours, theirs} {
			rate, err := rateOf(ctx, side, command, plan.RateTime)
			if err != nil {
				return RateRow{}, err
			}
			rates[i] = append(rates[i], rate)
		}
	}
	row := RateRow{Slots: len(ours), Command: command, Ours: medianRate(rates[0]), Swtpm: medianRate(rates[1])}
	if row.Swtpm > 0 {
		row.Ratio = row.Ours / row.Swtpm
	}
	return row, nil
}

func medianRate(rates []float64) float64 {
	s := slices.Sorted(slices.Values(rates))
	n := len(s)
	if n == 0 {
		return 0
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// rateOf has every TPM work for a while, and counts what was done until the last
// was asked to stop.
func rateOf(ctx context.Context, targets []target, command string, d time.Duration) (float64, error) {
	prepared := make([]workload.Script, len(targets))
	for i, t := range targets {
		s, err := workload.New(t, command)
		if err != nil {
			return 0, err
		}
		prepared[i] = s
	}
	var stop atomic.Bool
	var done atomic.Int64
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	begin := time.Now()
	for i, t := range targets {
		wg.Go(func() { errs[i] = repeat(t, prepared[i].Command, &stop, &done) })
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	rate := float64(done.Load()) / time.Since(begin).Seconds()
	stop.Store(true)
	wg.Wait()
	for i, t := range targets {
		errs = append(errs, workload.SendAll(t, prepared[i].Cleanup))
	}
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("bench: %s: %w", command, err)
	}
	return rate, ctx.Err()
}

func repeat(t target, command []byte, stop *atomic.Bool, done *atomic.Int64) error {
	framed := t.frame(command)
	for !stop.Load() {
		resp, err := t.exchange(framed)
		if err == nil {
			err = workload.CheckResponse(resp)
		}
		if err != nil {
			return err
		}
		done.Add(1)
	}
	return nil
}
