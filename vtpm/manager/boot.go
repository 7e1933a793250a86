// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/internal/shares"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/door"
)

// mostBoots is how many quotes for machines that start wait for the host's TPM at a time.
// All else that is asked of the TPM waits behind them: with 600 ms for each, a backend
// that asks without end under names that it invents holds others up for ten seconds.
const mostBoots = 16

// boots is evidence of the host's boot that was given lately. Its methods may be called
// from any goroutine.
type boots struct {
	age    time.Duration  // how old may be what is given again
	shares *shares.Shares // of each machine's quotes, beside those for verifiers
	places chan struct{}  // holds one token for each quote that is under way

	mu   sync.Mutex // guards last
	last map[string]boot
}

// boot is what a machine was given last.
type boot struct {
	run  coproc.RunID
	host *identity
	at   time.Time // when its quote was asked for
	text []byte
}

func newBoots(cfg *Config) *boots {
	return &boots{
		age: cfg.PCRAge, shares: shares.New(cfg.Burst, cfg.Every), places: make(chan struct{}, mostBoots), last: map[string]boot{},
	}
}

// again gives what the machine was given in this run a while ago: the quote is made for
// the run, and so it is the one that it would get, with another time in it.
func (b *boots) again(slot string, run coproc.RunID, host *identity, now time.Time) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.last[slot]; ok && e.run == run && e.host == host && b.youngLocked(e, now) {
		return e.text
	}
	return nil
}

// youngLocked says whether evidence can be given again. What is of a time to come is of a
// clock that was set back, and nobody knows how old that is.
func (b *boots) youngLocked(e boot, now time.Time) bool {
	age := now.Sub(e.at)
	return age >= 0 && age <= b.age
}

func (b *boots) keep(slot string, e boot, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for other, o := range b.last {
		if !b.youngLocked(o, now) {
			delete(b.last, other)
		}
	}
	b.last[slot] = e
}

// BootEvidence gives what a machine's TPM is to show of its host's boot, for one run of
// the machine. It says of the machine no more than its name and run, so that the slot may
// be on any card.
//
// The quote is made for this run of this machine alone, so machines can't share one. A
// machine that is reset gets what it got in this run before, if that is no older than
// Config.PCRAge; otherwise it takes one of its share of quotes. ErrBusy: the share is
// used up, or too many machines start; who asks again within seconds will have it.
func (m *Manager) BootEvidence(ctx context.Context, _ door.Caller, req *door.BootEvidenceRequest) (*door.BootEvidence, error) {
	if !abi.ValidName(req.Slot) || len(req.Run) != len(coproc.RunID{}) {
		return nil, fmt.Errorf("%w: boot evidence for the slot %.80q, a run of %d bytes", ErrRequest, req.Slot, len(req.Run))
	}
	run, host, now := coproc.RunID(req.Run), m.identity(), m.cfg.Now()
	if text := m.boots.again(req.Slot, run, host, now); text != nil {
		m.quoter.asked.add(key{forBoot, quoteCached})
		return &door.BootEvidence{Evidence: text}, nil
	}
	select {
	case m.boots.places <- struct{}{}:
		defer func() { <-m.boots.places }()
	default:
		return nil, fmt.Errorf("%w: many machines start; try again soon", ErrBusy)
	}
	done, ok := m.boots.shares.TakeAlone(req.Slot, now)
	if !ok {
		return nil, fmt.Errorf("%w: %s starts often, and has had its share of the host's quotes; try again soon", ErrBusy, req.Slot)
	}
	defer done()
	text, err := m.bootEvidence(ctx, run, req.Slot, host)
	if err != nil {
		return nil, err
	}
	m.boots.keep(req.Slot, boot{run, host, now, text}, m.cfg.Now())
	return &door.BootEvidence{Evidence: text}, nil
}

func (m *Manager) bootEvidence(ctx context.Context, run coproc.RunID, slot string, host *identity) ([]byte, error) {
	nonce := bootevidence.Qualifying(run, slot)
	reading, err := m.quoter.alone(ctx, forBoot, nonce[:])
	if err != nil {
		return nil, err
	}
	var certificate []byte
	if host != nil {
		certificate = host.aik.Raw
	}
	e, err := bootevidence.New(run, slot, certificate, &reading.Quote, &reading.Values)
	if err != nil {
		return nil, err
	}
	return e.Marshal()
}
