// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is what one process holds after a load, in bytes.
type Memory struct {
	Process string `json:"process"`
	PSS     int64  `json:"pss"`     // proportional set size: shared pages by their share
	Private int64  `json:"private"` // pages of its own that were written to
}

// MemoryReport compares both sides, each measured while it ran alone.
type MemoryReport struct {
	Ours  []Memory `json:"ours"`
	Swtpm []Memory `json:"swtpm"`
	Sum   int64    `json:"ours_sum_pss"`
}

func measureMemory(ctx context.Context, p programs, dir string, plan Plan) (r MemoryReport, err error) {
	r.Ours, err = memoryOf(ctx, filepath.Join(dir, "ours"), plan, []string{"vhost-user-vtpm", "hwvtpm-engine"},
		func(d string) (target, error) { return openRing(ctx, p, d, "memory", false) })
	if err != nil {
		return r, err
	}
	r.Swtpm, err = memoryOf(ctx, filepath.Join(dir, "swtpm"), plan, []string{"swtpm"},
		func(d string) (target, error) { return openSwtpm(ctx, d) })
	for _, m := range r.Ours {
		r.Sum += m.PSS
	}
	return r, err
}

// memoryOf puts a realistic load on a fresh TPM and reads the memory of its
// processes, which names name.
func memoryOf(ctx context.Context, dir string, plan Plan, names []string, open func(string) (target, error)) ([]Memory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	t, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := load(ctx, t, plan.Load); err != nil {
		return nil, err
	}
	pids := t.pids()
	if len(pids) != len(names) {
		return nil, fmt.Errorf("bench: %d processes instead of %v", len(pids), names)
	}
	var all []Memory
	for i, pid := range pids {
		m, err := readMemory(pid)
		if err != nil {
			return nil, err
		}
		m.Process = names[i]
		all = append(all, m)
	}
	return all, nil
}

// load is a boot's worth of measurements and more: short commands, keys of
// both kinds, signatures, quotes and NV writes.
func load(ctx context.Context, t target, commands int) error {
	if err := startup(t); err != nil {
		return err
	}
	all, err := scripts(t)
	if err != nil {
		return err
	}
	for _, s := range all {
		if _, err := play(ctx, t, s, 0, commands/len(all)); err != nil {
			return err
		}
	}
	w, err := newNVWriter(t, nvLarge)
	if err != nil {
		return err
	}
	_, err = w.batch(ctx, max(1, commands/100))
	return err
}

// readMemory reads /proc/PID/smaps_rollup (proc(5)), whose unit is KiB.
func readMemory(pid int) (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("bench: %w", err)
	}
	return parseMemory(string(text))
}

func parseMemory(rollup string) (Memory, error) {
	var m Memory
	seen := 0
	for line := range strings.Lines(rollup) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("bench: smaps_rollup: %w", err)
		}
		switch f[0] {
		case "Pss:":
			m.PSS = n << 10
			seen++
		case "Private_Dirty:":
			m.Private = n << 10
			seen++
		}
	}
	if seen != 2 {
		return m, fmt.Errorf("bench: smaps_rollup without Pss and Private_Dirty")
	}
	return m, nil
}
