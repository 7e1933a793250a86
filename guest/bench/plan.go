// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
	"time"

	"hwvtpm/guest/agent"
)

// Plan says how much is measured.
type Plan struct {
	Rounds   int `json:"rounds"`   // of the host part
	Short    int `json:"short"`    // iterations per round of short commands on the host
	Long     int `json:"long"`     // of the others
	NV       int `json:"nv"`       // NV writes per round
	Starts   int `json:"starts"`   // pairs of starts
	Load     int `json:"load"`     // commands before memory is looked at
	Requests int `json:"requests"` // whose allocations are counted

	RateSlots  []int         `json:"rate_slots"` // how many TPMs work at once
	RateRounds int           `json:"rate_rounds"`
	RateTime   time.Duration `json:"rate_ns"`    // of each side in a round
	LiveSlots  int           `json:"live_slots"` // whose memory is looked at
	LiveLoad   int           `json:"live_load"`  // commands on each before that
	FullSlots  int           `json:"full_slots"` // made with all endorsement keys
	ManySlots  int           `json:"many_slots"` // made with one, and parked

	AttestMachines int `json:"attest_machines"`
	AttestRounds   int `json:"attest_rounds"` // in which each enrols and answers: few, as the host's limits for one machine are
	AttestChecks   int `json:"attest_checks"` // of each kind, in each of Rounds

	GuestRounds int `json:"guest_rounds"`
	GuestShort  int `json:"guest_short"` // iterations per round in the guest
	GuestLong   int `json:"guest_long"`
}

// FullPlan is what docs/benchmarks.md is made with.
func FullPlan() Plan {
	return Plan{
		Rounds: 15, Short: 1000, Long: 60, NV: 40, Starts: 21, Load: 3000, Requests: 20000,
		RateSlots: []int{1, 8, 32}, RateRounds: 5, RateTime: 500 * time.Millisecond,
		LiveSlots: 50, LiveLoad: 60, FullSlots: 20, ManySlots: 1000,
		AttestMachines: 16, AttestRounds: 4, AttestChecks: 120,
		GuestRounds: 7, GuestShort: 300, GuestLong: 100,
	}
}

// QuickPlan shows in seconds that everything works. Its figures are worth
// little.
func QuickPlan() Plan {
	return Plan{
		Rounds: 2, Short: 50, Long: 3, NV: 3, Starts: 2, Load: 50, Requests: 2000,
		RateSlots: []int{1, 3}, RateRounds: 2, RateTime: 50 * time.Millisecond,
		LiveSlots: 3, LiveLoad: 6, FullSlots: 1, ManySlots: 12,
		AttestMachines: 3, AttestRounds: 2, AttestChecks: 6,
		GuestRounds: 2, GuestShort: 20, GuestLong: 3,
	}
}

func (p Plan) iterations(command string) int {
	if slices.Contains(shortCommands, command) {
		return p.Short
	}
	return p.Long
}

func (p Plan) warmup(command string) int { return max(1, p.iterations(command)/10) }

func (p Plan) guestArgs(command string) agent.BenchArgs {
	n := p.GuestLong
	if slices.Contains(shortCommands, command) {
		n = p.GuestShort
	}
	return agent.BenchArgs{
		Device: "/dev/tpm0", Commands: []string{command},
		Iterations: n, Warmup: max(1, n/10), Samples: true,
	}
}
