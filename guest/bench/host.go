// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/guest/workload"
)

// HostRow is one command in one placement.
type HostRow struct {
	Placement string  `json:"placement"`
	Command   string  `json:"command"` // the workload's name of it
	Ring      Dist    `json:"ring"`    // kick to call, split ring
	Packed    Dist    `json:"packed"`  // kick to call, packed ring
	Slot      Dist    `json:"slot"`    // coprocessor driver and engine
	Card      Dist    `json:"card"`    // driver and worker of a slot behind coprocd
	Swtpm     Dist    `json:"swtpm"`   // write and read on swtpm's socket
	Engine    Dist    `json:"engine"`  // libtpms alone; only where placed freely
	Ratio     float64 `json:"ratio"`   // ring / swtpm, medians
	CardRatio float64 `json:"card_ratio"`
	CPU       HostCPU `json:"cpu"`
}

// HostCPU is processor time per command, a mean over all rounds. What is
// missing to the round trip is waiting: for a wake-up, or for the processor.
type HostCPU struct {
	Client      time.Duration `json:"client_ns"`
	Backend     time.Duration `json:"backend_ns"`
	Engine      time.Duration `json:"engine_ns"`
	SwtpmClient time.Duration `json:"swtpm_client_ns"`
	Swtpm       time.Duration `json:"swtpm_ns"`
}

// The contestants of the host part, in the order of a round.
const (
	onRing = iota
	onPacked
	onSlot
	onCard
	onSwtpm
	contestants
)

// hostBench holds all contestants at once.
type hostBench struct {
	targets [contestants]target
	direct  *direct
	scripts []workload.Script
	plan    Plan
}

func newHostBench(ctx context.Context, p programs, dir string, plan Plan) (*hostBench, error) {
	h := &hostBench{plan: plan}
	open := [contestants]func(dir string) (target, error){
		onRing:   func(d string) (target, error) { return openRing(ctx, p, d, "bench", false) },
		onPacked: func(d string) (target, error) { return openRing(ctx, p, d, "bench", true) },
		onSlot:   func(d string) (target, error) { return openSlot(ctx, p, d) },
		onCard:   func(d string) (target, error) { return openCard(ctx, p, d) },
		onSwtpm:  func(d string) (target, error) { return openSwtpm(ctx, d) },
	}
	for i, f := range open {
		if err := h.open(i, filepath.Join(dir, fmt.Sprint(i)), f); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	var err error
	if h.direct, err = openDirect(ctx, dir); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if h.scripts, err = scripts(h.targets[onSlot]); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *hostBench) open(i int, dir string, open func(string) (target, error)) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	t, err := open(dir)
	if err != nil {
		return err
	}
	h.targets[i] = t
	return startup(t)
}

func (h *hostBench) close() error {
	for _, t := range h.targets {
		if t != nil {
			t.close()
		}
	}
	if h.direct != nil {
		h.direct.close()
	}
	return setAffinity(0, anyCPU)
}

// run measures all commands where processes are placed freely, and some in the
// other placements.
func (h *hostBench) run(ctx context.Context, progress func(string, ...any)) ([]HostRow, error) {
	var rows []HostRow
	for _, place := range placements() {
		err := setAffinity(0, place.client)
		for _, t := range h.targets {
			err = errors.Join(err, pin(t.pids(), place.server))
		}
		if err != nil {
			return nil, err
		}
		for _, s := range h.scripts {
			if !place.has(s.Name) {
				continue
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("bench: %w", context.Cause(ctx))
			}
			progress("host, %s: %s", place.name, commandNames[s.Name])
			row, err := h.measure(ctx, s)
			if err != nil {
				return nil, err
			}
			row.Placement = place.name
			if !place.pinned() {
				if row.Engine, err = h.measureEngine(s); err != nil {
					return nil, err
				}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// measure lets the contestants take turns.
func (h *hostBench) measure(ctx context.Context, s workload.Script) (HostRow, error) {
	n := h.plan.iterations(s.Name)
	var all [contestants]series
	var cpu cpuMeter
	for range h.plan.Rounds {
		for i, t := range h.targets {
			cpu.begin(t)
			samples, err := play(ctx, t, s, h.plan.warmup(s.Name), n)
			if err != nil {
				return HostRow{}, err
			}
			cpu.end(i, len(samples)+h.plan.warmup(s.Name))
			all[i].add(samples)
		}
	}
	row := HostRow{
		Command: s.Name,
		Ring:    all[onRing].dist(), Packed: all[onPacked].dist(),
		Slot: all[onSlot].dist(), Card: all[onCard].dist(), Swtpm: all[onSwtpm].dist(),
		CPU: cpu.result(),
	}
	row.Ratio = ratio(row.Ring.P50, row.Swtpm.P50)
	row.CardRatio = ratio(row.Card.P50, row.Swtpm.P50)
	return row, nil
}

func (h *hostBench) measureEngine(s workload.Script) (Dist, error) {
	var all series
	for range h.plan.Rounds {
		samples, err := h.direct.play(s, h.plan.warmup(s.Name), h.plan.iterations(s.Name))
		if err != nil {
			return Dist{}, err
		}
		all.add(samples)
	}
	return all.dist(), nil
}

// cpuMeter adds up the processor time of batches. A script's preparation is in
// it, so it is for commands that need none.
type cpuMeter struct {
	target target
	before []time.Duration // client, then the target's processes
	sum    [contestants][3]time.Duration
	count  [contestants]int
}

func (m *cpuMeter) read() []time.Duration {
	times := []time.Duration{threadTime(unix.Gettid())}
	for _, pid := range m.target.pids() {
		times = append(times, cpuTime(pid))
	}
	return times
}

func (m *cpuMeter) begin(t target) {
	m.target = t
	m.before = m.read()
}

func (m *cpuMeter) end(i, commands int) {
	for k, after := range m.read() {
		if k < len(m.before) && k < len(m.sum[i]) {
			m.sum[i][k] += after - m.before[k]
		}
	}
	m.count[i] += commands
}

func (m *cpuMeter) result() HostCPU {
	per := func(i, k int) time.Duration {
		return m.sum[i][k] / time.Duration(max(1, m.count[i]))
	}
	return HostCPU{
		Client: per(onRing, 0), Backend: per(onRing, 1), Engine: per(onRing, 2),
		SwtpmClient: per(onSwtpm, 0), Swtpm: per(onSwtpm, 1),
	}
}
