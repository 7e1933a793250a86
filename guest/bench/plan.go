// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"

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

	GuestRounds int `json:"guest_rounds"`
	GuestShort  int `json:"guest_short"` // iterations per round in the guest
	GuestLong   int `json:"guest_long"`
}

// FullPlan is what docs/benchmarks.md is made with.
func FullPlan() Plan {
	return Plan{
		Rounds: 15, Short: 1000, Long: 60, NV: 40, Starts: 21, Load: 3000, Requests: 20000,
		GuestRounds: 7, GuestShort: 300, GuestLong: 100,
	}
}

// QuickPlan shows in seconds that everything works. Its figures are worth
// little.
func QuickPlan() Plan {
	return Plan{
		Rounds: 2, Short: 50, Long: 3, NV: 3, Starts: 2, Load: 50, Requests: 2000,
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
