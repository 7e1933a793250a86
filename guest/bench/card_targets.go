// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"slices"

	"hwvtpm/guest/workload"
)

// What a card with many slots sets out to reach.
const (
	cardShortLimit  = 1.0      // of swtpm's socket: short commands
	cardECLimit     = 0.2      // of swtpm: ECDSA and quotes
	cardRSALimit    = 1.05     // of swtpm: the same library does the work, so 5 % is noise
	cardLiveLimit   = 3.0      // of an swtpm process: memory of a live slot
	cardParkedLimit = 64 << 10 // bytes: memory of a parked slot
)

// judgeCard fills in the verdicts on slots behind coprocd.
func (r *Report) judgeCard() {
	for _, row := range r.Host {
		if row.Placement == "free" && row.Card.Samples > 0 {
			r.judgeCardCommand(row)
		}
	}
	if r.Card == nil {
		return
	}
	m := r.Card.Memory
	live := float64(m.PerLive) / float64(max(m.PerSwtpm, 1))
	r.verdict(fmt.Sprintf("memory of a live slot, %d slots", m.Live), fmt.Sprintf("at most %.0f x swtpm", cardLiveLimit),
		times(live), live <= cardLiveLimit, fmt.Sprintf("a worker takes %s, an swtpm %s", mebibytes(m.PerLive), mebibytes(m.PerSwtpm)))
	r.verdict(fmt.Sprintf("memory of a parked slot, %d slots", m.Parked), "under "+kibibytes(cardParkedLimit),
		kibibytes(m.PerParked), m.PerParked < cardParkedLimit, "coprocd grew by that much for each")
}

func (r *Report) judgeCardCommand(row HostRow) {
	limit := cardECLimit
	switch {
	case slices.Contains(shortCommands, row.Command):
		limit = cardShortLimit
	case row.Command == workload.SignRSA:
		limit = cardRSALimit
	}
	r.verdict(fmt.Sprintf("slot of coprocd, %s", label(row.Command)), fmt.Sprintf("at most %.2f x swtpm", limit),
		times(row.CardRatio), row.CardRatio <= limit,
		fmt.Sprintf("%s instead of %s; a slot that is not behind coprocd takes %s", micros(row.Card.P50), micros(row.Swtpm.P50), micros(row.Slot.P50)))
}

// verdict adds one; cause is why it was missed, if it was.
func (r *Report) verdict(what, target, measured string, met bool, cause string) {
	v := Verdict{What: what, Target: target, Measured: measured, Met: met}
	if !met {
		v.Cause = cause
	}
	r.Verdicts = append(r.Verdicts, v)
}
