// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What this project sets out to reach.
const (
	guestLimit  = 0.2      // of tpm-crb with swtpm: short commands and ECDSA in the guest
	hostLimit   = 2.0      // of swtpm's bare socket: short commands, kick to call
	hostGoal    = 1.0      // what would be good
	memoryLimit = 12 << 20 // bytes, PSS of backend and engine together
	allocLimit  = 0.01     // per request: none but what the runtime does once in a while
)

// pollInterval is a little less than what the kernel's TPM core sleeps at least
// if a polled device is not done when it looks first.
const pollInterval = 900 * time.Microsecond

// Verdict is one target with what was measured.
type Verdict struct {
	What     string `json:"what"`
	Target   string `json:"target"`
	Measured string `json:"measured"`
	Met      bool   `json:"met"`
	Cause    string `json:"cause,omitempty"` // why not, from the run's own figures
}

// judge fills in the verdicts.
func (r *Report) judge() {
	r.judgeGuest()
	r.judgeHost()
	r.judgeCard()
	r.judgeAttest()
	r.judgeMemory()
	r.judgeAllocations()
}

func (r *Report) judgeGuest() {
	if r.Guest == nil {
		return
	}
	for _, row := range r.Guest.Rows {
		if !slices.Contains(inGuestTargets, row.Command) {
			continue
		}
		v := Verdict{
			What:     fmt.Sprintf("in the guest, %s, %s", label(row.Command), row.Placement),
			Target:   fmt.Sprintf("at most %.1f x tpm-crb with swtpm", guestLimit),
			Measured: times(row.Ratio),
			Met:      row.Ratio <= guestLimit,
		}
		if !v.Met {
			v.Cause = r.guestCause(row)
		}
		r.Verdicts = append(r.Verdicts, v)
	}
}

func (r *Report) guestCause(row GuestRow) string {
	allowed := time.Duration(guestLimit * float64(row.CRB.P50))
	if row.CRB.P50 < pollInterval {
		return fmt.Sprintf("swtpm answers before the guest's kernel looks first, so that more than half of its commands do not sleep (ratio of the means: %s)", times(row.MeanRatio))
	}
	h, ok := r.hostRow(row.Placement, row.Command)
	if !ok {
		return "the parts were not measured in this run"
	}
	s, ok := r.stagesOf(row.Command)
	if !ok || h.Slot.P50 > allowed {
		return fmt.Sprintf("without a virtual machine the slot alone takes %s, and kick to call %s; the target allows %s",
			micros(h.Slot.P50), micros(h.Ring.P50), micros(allowed))
	}
	name, most := s.largest()
	return fmt.Sprintf("%s takes %s of %s (%s), and the target allows %s", name, micros(most), micros(s.Total), s.Placement, micros(allowed))
}

func (r *Report) judgeHost() {
	for _, row := range r.Host {
		if !slices.Contains(shortCommands, row.Command) {
			continue
		}
		v := Verdict{
			What:     fmt.Sprintf("on the host, %s, %s", label(row.Command), row.Placement),
			Target:   fmt.Sprintf("at most %.0f x swtpm's socket, better %.0f x", hostLimit, hostGoal),
			Measured: times(row.Ratio),
			Met:      row.Ratio <= hostLimit,
		}
		if !v.Met {
			v.Cause = hostCause(row)
		}
		r.Verdicts = append(r.Verdicts, v)
	}
}

// hostCause tells work from waiting.
func hostCause(row HostRow) string {
	ours := row.CPU.Client + row.CPU.Backend + row.CPU.Engine
	theirs := row.CPU.SwtpmClient + row.CPU.Swtpm
	return fmt.Sprintf("four wake-ups (backend, engine, backend, client) instead of two, and %s of processor time (client %s, backend %s, engine %s) instead of %s",
		micros(ours), micros(row.CPU.Client), micros(row.CPU.Backend), micros(row.CPU.Engine), micros(theirs))
}

func (r *Report) judgeMemory() {
	if r.Memory == nil {
		return
	}
	v := Verdict{
		What:     "memory of backend and engine (PSS)",
		Target:   fmt.Sprintf("at most %s", mebibytes(memoryLimit)),
		Measured: mebibytes(r.Memory.Sum),
		Met:      r.Memory.Sum <= memoryLimit,
	}
	if !v.Met {
		var parts []string
		for _, m := range r.Memory.Ours {
			parts = append(parts, fmt.Sprintf("%s has %s, of that %s its own", m.Process, mebibytes(m.PSS), mebibytes(m.Private)))
		}
		v.Cause = strings.Join(parts, "; ")
	}
	r.Verdicts = append(r.Verdicts, v)
}

func (r *Report) judgeAllocations() {
	if len(r.Allocations) == 0 {
		return
	}
	worst := slices.MaxFunc(r.Allocations, func(a, b AllocRow) int { return cmp.Compare(a.PerRequest, b.PerRequest) })
	v := Verdict{
		What:     "allocations per request",
		Target:   "none",
		Measured: fmt.Sprintf("%.3f", worst.PerRequest),
		Met:      worst.PerRequest <= allocLimit,
	}
	if !v.Met {
		v.Cause = worst.What
	}
	r.Verdicts = append(r.Verdicts, v)
}
