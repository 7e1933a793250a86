// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-eventlog/extract"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
)

// bootLog is an event log that leads to quoted values of PCR 0-7.
type bootLog struct {
	events map[string][]tcg.Event // by bank, of PCR 0-7
	banks  []string               // that it leads to, the weakest first

	// secureBoot is what the log shows of UEFI Secure Boot, worked out once.
	secureBoot func() (bool, error)
}

// replay checks that a log leads to the quoted values of PCR 0-7, in each bank that
// it has digests for: at least a strong one.
func replay(raw []byte, values PCRs) (*bootLog, error) {
	el, err := tcg.ParseEventLog(raw, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		return nil, fmt.Errorf("the event log can't be read: %w", err)
	}
	l := &bootLog{events: map[string][]tcg.Event{}}
	strong := false
	for _, b := range values.banks() {
		if !covers(el, b.hash) {
			continue
		}
		events, err := replayBank(el, b, values)
		if err != nil {
			return nil, err
		}
		l.events[b.name], l.banks = events, append(l.banks, b.name)
		strong = strong || b.strong()
	}
	if !strong {
		return nil, errors.New("the event log has no digests of a quoted bank stronger than SHA-1")
	}
	l.secureBoot = sync.OnceValues(l.parseSecureBoot)
	return l, nil
}

func covers(el *tcg.EventLog, hash crypto.Hash) bool {
	for _, alg := range el.Algs {
		if alg.CryptoHash() == hash {
			return true
		}
	}
	return false
}

// replayBank replays one bank alone: of several, go-eventlog is content with any.
func replayBank(el *tcg.EventLog, b *bank, values PCRs) ([]tcg.Event, error) {
	var mrs []register.MR
	for n := range firmwarePCRs {
		if v := values.Get(b.name, n); v != nil {
			mrs = append(mrs, register.PCR{Index: n, Digest: v, DigestAlg: b.hash})
		}
	}
	events, err := el.Verify(mrs)
	if replay, ok := errors.AsType[tcg.ReplayError](err); ok {
		return nil, fmt.Errorf("the event log does not lead to the quoted values of PCRs %s in %s", ranges(slices.Sorted(slices.Values(replay.InvalidMRs))), b.name)
	} else if err != nil {
		return nil, fmt.Errorf("the event log does not replay in %s: %w", b.name, err)
	}
	return events, touched(mrs, events, b)
}

// touched checks the PCRs that the log has no event of. go-eventlog lets them be,
// but a value that is not a start value has come from somewhere.
func touched(mrs []register.MR, events []tcg.Event, b *bank) error {
	seen := map[int]bool{}
	for _, e := range events {
		seen[e.Index] = true
	}
	for _, mr := range mrs {
		if seen[mr.Idx()] {
			continue
		}
		for _, c := range mr.Dgst() {
			if c != 0 {
				return fmt.Errorf("the event log has no event of PCR %d in %s, which was extended", mr.Idx(), b.name)
			}
		}
	}
	return nil
}

// parseSecureBoot says whether the log shows that UEFI Secure Boot was on, in each bank
// stronger than SHA-1 that it leads to: there may be one that the firmware did not
// measure into, and then anybody could, afterwards. An error is a log that shows neither.
func (l *bootLog) parseSecureBoot() (bool, error) {
	for _, name := range l.banks {
		if !bankNamed(name).strong() {
			continue
		}
		if on, err := secureBoot(l.events[name]); err != nil || !on {
			return false, err
		}
	}
	return true, nil
}

// secureBoot judges the events of one bank by go-eventlog's rules.
func secureBoot(events []tcg.Event) (bool, error) {
	for _, e := range events {
		// go-eventlog gives up the process on a type without a name.
		if _, known := tcg.EventType(e.Type).KnownName(); !known && (e.Index == 2 || e.Index == 7) {
			return false, fmt.Errorf("an event of PCR %d has the unknown type %#x", e.Index, uint32(e.Type))
		}
	}
	state, err := extract.ParseSecurebootState(events, extract.TPMRegisterConfig)
	if err != nil {
		return false, fmt.Errorf("the event log does not show the state of Secure Boot: %w", err)
	}
	return state.Enabled, nil
}

func (l *bootLog) text() string {
	return "the event log leads to the quoted values in " + strings.Join(l.banks, ", ")
}
