// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/tpmcmd"
	"hwvtpm/firmware/wire"
)

type counter = atomic.Uint64

// counters are those that the card itself counts.
type counters struct {
	creates, destroys, clones, adopts, opens, denied, parks, unparks, restarts, saves, saveErrors counter
}

// totals are what workers that have ended have counted, and the card's own times.
type totals struct {
	mu       sync.Mutex // guards what follows
	commands uint64
	unshown  uint64
	classes  [tpmcmd.Classes]wire.Histogram
	results  [tpmcmd.Results]uint64
	saves    wire.Histogram
	resumes  wire.Histogram
}

// Stats are figures for metrics. All count from the opening of the card.
type Stats struct {
	Counters abi.CardCounters
	Health   abi.CardHealth

	// Classes and Results are of all TPM commands of all slots.
	Classes [tpmcmd.Classes]wire.Histogram
	Results [tpmcmd.Results]uint64

	// Saves is how long it took to make states durable, Resumes how long from
	// a parked client's command to a worker that takes it.
	Saves, Resumes wire.Histogram

	// Unshown is how many starts of TPMs were without the boot evidence that was to be
	// shown, since the guest had filled its NV.
	Unshown uint64

	Slots []SlotStats // ascending by number
}

// SlotStats are figures of one slot.
type SlotStats struct {
	Number             uint32
	Name               string
	Life               abi.SlotLife
	State              abi.SlotState // of a live one
	Busy               bool          // it executes a command
	Generation, Epoch  uint64
	Commands, Restarts uint64
}

// Stats reads the figures. Those of living workers are read without stopping them.
func (c *Card) Stats() Stats {
	c.totals.mu.Lock()
	st := Stats{
		Classes: c.totals.classes, Results: c.totals.results,
		Saves: c.totals.saves, Resumes: c.totals.resumes,
		Unshown: c.totals.unshown,
	}
	commands := c.totals.commands
	c.totals.mu.Unlock()
	st.Health = c.emptyHealth()
	for _, s := range c.all() {
		one := s.stats(&st)
		commands += one.live
		count(&st.Health, one.Life)
		st.Slots = append(st.Slots, one.SlotStats)
	}
	st.Counters = c.readOwn(commands)
	return st
}

type liveStats struct {
	SlotStats
	live uint64 // commands that are in no total yet
}

// stats reads the slot's figures, and adds its worker's to st.
func (s *slot) stats(st *Stats) liveStats {
	epoch, generation := s.card.store.Newest(s.rec.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	one := liveStats{SlotStats: SlotStats{
		Number: s.rec.Number, Name: s.rec.Name, Life: s.life(), Generation: generation, Epoch: epoch,
		Commands: s.commands, Restarts: s.restarts,
	}}
	if s.run != nil {
		p := s.run.page
		one.State, one.Busy, one.live = p.State(), p.Busy(), p.Commands()
		one.Commands += one.live
		st.Unshown += p.Unshown()
		addPage(&st.Classes, &st.Results, p)
	}
	return one
}

func addPage(classes *[tpmcmd.Classes]wire.Histogram, results *[tpmcmd.Results]uint64, p *wire.Page) {
	for i := range classes {
		h := p.ReadHistogram(tpmcmd.Class(i))
		for b := range h.Count {
			classes[i].Count[b] += h.Count[b]
		}
		classes[i].Sum += h.Sum
	}
	for i, n := range p.ReadResults() {
		results[i] += n
	}
}

// fold takes over the figures of a worker that has ended.
func (c *Card) fold(p *wire.Page) {
	c.totals.mu.Lock()
	defer c.totals.mu.Unlock()
	c.totals.commands += p.Commands()
	c.totals.unshown += p.Unshown()
	addPage(&c.totals.classes, &c.totals.results, p)
}

func observe(h *wire.Histogram, d time.Duration) {
	h.Count[tpmcmd.Bucket(uint64(d))]++
	h.Sum += uint64(d)
}

// saved counts a save that took d.
func (c *Card) saved(d time.Duration, err error) {
	if err != nil {
		c.counters.saveErrors.Add(1)
		return
	}
	c.counters.saves.Add(1)
	c.totals.mu.Lock()
	defer c.totals.mu.Unlock()
	observe(&c.totals.saves, d)
}

// notSaved logs that a state could not be written, which a guest can bring about
// again and again while the disk is full.
func (c *Card) notSaved(slot string, err error) {
	if ok, dropped := c.unsaved.allow(); ok {
		c.log.Error("state could not be written", "slot", slot, "err", err, "not logged before", dropped)
	}
}

// resumed counts a slot that was brought back in d.
func (c *Card) resumed(d time.Duration) {
	c.counters.unparks.Add(1)
	c.totals.mu.Lock()
	defer c.totals.mu.Unlock()
	observe(&c.totals.resumes, d)
}

func (c *Card) readOwn(commands uint64) abi.CardCounters {
	n := &c.counters
	return abi.CardCounters{
		Creates: n.creates.Load(), Destroys: n.destroys.Load(), Clones: n.clones.Load(), Adopts: n.adopts.Load(),
		Opens: n.opens.Load(), Denied: n.denied.Load(), Parks: n.parks.Load(), Unparks: n.unparks.Load(),
		Restarts: n.restarts.Load(), Commands: commands, Saves: n.saves.Load(), SaveErrors: n.saveErrors.Load(),
	}
}

// emptyHealth is the card's health without its slots.
func (c *Card) emptyHealth() abi.CardHealth {
	h := abi.CardHealth{
		Spares: uint32(c.pool.Spares()), Epoch: c.store.Epoch(), AnchorCounter: c.store.Counter(),
		Firmware: c.measured, AnchorDigest: c.store.Digest(), Uptime: uint64(time.Since(c.opened) / time.Second),
	}
	if c.cfg.Protection.Hardware() {
		h.KeyProtection, h.RollbackProtection = abi.ProtectionTPM, abi.ProtectionTPM
	}
	return h
}

func count(h *abi.CardHealth, l abi.SlotLife) {
	h.Slots++
	switch l {
	case abi.LifeLive:
		h.Live++
	case abi.LifeParked:
		h.Parked++
	case abi.LifeLocked:
		h.Locked++
	case abi.LifeFaulted:
		h.Faulted++
	case abi.LifeClosed:
	}
}

func (c *Card) health() abi.CardHealth {
	h := c.emptyHealth()
	for _, s := range c.all() {
		s.mu.Lock()
		count(&h, s.life())
		s.mu.Unlock()
	}
	return h
}

func (s *Session) readHealth(_ context.Context, _ *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	h := s.card.health()
	return abi.AppendCardHealth(dst, &h), nil, nil
}

func (s *Session) readCounters(_ context.Context, _ *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	st := s.card.Stats()
	return abi.AppendCardCounters(dst, &st.Counters), nil, nil
}

// limiter lets one thing a second into the log.
type limiter struct {
	mu      sync.Mutex // guards what follows
	last    time.Time
	dropped int
}

// allow says whether to log now, and what was not logged since the last time.
func (l *limiter) allow() (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= time.Second {
		l.last, dropped, l.dropped = now, l.dropped, 0
		return true, dropped
	}
	l.dropped++
	return false, 0
}
