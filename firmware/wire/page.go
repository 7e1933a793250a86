// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"sync/atomic"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/tpmcmd"
)

const pageWords = PageSize / 8

// Page is the status page of a worker, in shared memory. Each word is atomic by
// itself and no two are read at one moment. The worker, and one goroutine of it,
// writes; the card reads, at any time, and bounds what it reads. All but the
// sequence number begin with the worker, which zeroes them.
//
//	word  0  state of the slot (abi.SlotState)
//	      1  last sequence number on record
//	      2  start of the last command, CLOCK_MONOTONIC in ns
//	      3  1 while a submission is served, else 0
//	      4  commands        5  checkpoints
//	      6  journaled       7  durable writes
//	      8  generation      9  epoch
//	     10  starts without the boot evidence that was to be shown
//	     16  commands by result (6 words)
//	     32  histograms by class (9 times 17 words: buckets, sum in ns)
//
// All words are 64 bits in the machine's byte order: both sides are on one.
type Page struct {
	w *[pageWords]atomic.Uint64
}

// Words of the page.
const (
	wordState = iota
	wordSeq
	wordActive
	wordBusy
	wordCommands
	wordCheckpoints
	wordJournaled
	wordDurable
	wordGeneration
	wordEpoch
	wordUnshown

	wordResults    = 16
	wordHistograms = 32
	histogramWords = tpmcmd.Buckets + 1
)

// Histogram is how long the commands of a class took.
type Histogram struct {
	Count [tpmcmd.Buckets]uint64
	Sum   uint64 // ns
}

// Reset zeroes all but the sequence number. It is for a worker that begins.
func (p *Page) Reset() {
	for i := range p.w {
		if i != wordSeq {
			p.w[i].Store(0)
		}
	}
}

// SetState tells the state of the slot.
func (p *Page) SetState(s abi.SlotState) { set(&p.w[wordState], uint64(s)) }

// State is the state of the slot.
func (p *Page) State() abi.SlotState {
	return abi.SlotState(min(p.w[wordState].Load(), uint64(abi.SlotFailed)))
}

// SetSeq tells the last sequence number on record. The worker does so before the
// completion leaves, so what a client has seen is never more.
func (p *Page) SetSeq(seq uint64) { p.w[wordSeq].Store(seq) }

// Seq is the last sequence number on record.
func (p *Page) Seq() uint64 { return p.w[wordSeq].Load() }

// Touch tells when a submission began, CLOCK_MONOTONIC in ns.
func (p *Page) Touch(ns int64) { p.w[wordActive].Store(uint64(ns)) }

// LastActive is when the last submission began, CLOCK_MONOTONIC in ns.
func (p *Page) LastActive() int64 { return int64(p.w[wordActive].Load()) }

// SetBusy tells whether a submission is served.
func (p *Page) SetBusy(busy bool) {
	var v uint64
	if busy {
		v = 1
	}
	p.w[wordBusy].Store(v)
}

// Busy tells whether a submission is served.
func (p *Page) Busy() bool { return p.w[wordBusy].Load() != 0 }

// Counters are those of a worker since it started.
type Counters struct {
	Commands, Checkpoints, Journaled, Durable, Unshown uint64
}

// SetCounters tells the counters.
func (p *Page) SetCounters(c Counters) {
	set(&p.w[wordCommands], c.Commands)
	set(&p.w[wordCheckpoints], c.Checkpoints)
	set(&p.w[wordJournaled], c.Journaled)
	set(&p.w[wordDurable], c.Durable)
	set(&p.w[wordUnshown], c.Unshown)
}

// Counters are the counters.
func (p *Page) Counters() Counters {
	return Counters{p.Commands(), p.Checkpoints(), p.Journaled(), p.Durable(), p.Unshown()}
}

// Commands is how many TPM commands ran.
func (p *Page) Commands() uint64 { return p.w[wordCommands].Load() }

// Checkpoints is how many full volatile states were written.
func (p *Page) Checkpoints() uint64 { return p.w[wordCheckpoints].Load() }

// Journaled is how many commands were written to the journal.
func (p *Page) Journaled() uint64 { return p.w[wordJournaled].Load() }

// Durable is how many permanent states were saved.
func (p *Page) Durable() uint64 { return p.w[wordDurable].Load() }

// Unshown is how many starts of the TPM were without the boot evidence that was to be
// shown, since the guest has filled its NV.
func (p *Page) Unshown() uint64 { return p.w[wordUnshown].Load() }

// SetPosition tells the position of the permanent state.
func (p *Page) SetPosition(generation, epoch uint64) {
	set(&p.w[wordGeneration], generation)
	set(&p.w[wordEpoch], epoch)
}

// Generation is the generation of the permanent state.
func (p *Page) Generation() uint64 { return p.w[wordGeneration].Load() }

// Epoch is the epoch of the permanent state.
func (p *Page) Epoch() uint64 { return p.w[wordEpoch].Load() }

// Observe counts a command that ended: its class, its result and how many
// nanoseconds it took.
func (p *Page) Observe(class tpmcmd.Class, result tpmcmd.Result, ns uint64) {
	at := wordHistograms + int(class%tpmcmd.Classes)*histogramWords
	bump(&p.w[at+tpmcmd.Bucket(ns)], 1)
	bump(&p.w[at+tpmcmd.Buckets], ns)
	bump(&p.w[wordResults+int(result%tpmcmd.Results)], 1)
}

// set writes a word that nobody else writes. Most have changed rarely since the last
// command, and an atomic store costs more than to look.
func set(w *atomic.Uint64, v uint64) {
	if w.Load() != v {
		w.Store(v)
	}
}

// bump adds to a word that nobody else writes.
func bump(w *atomic.Uint64, n uint64) { w.Store(w.Load() + n) }

// ReadHistogram reads how long the commands of a class took.
func (p *Page) ReadHistogram(class tpmcmd.Class) Histogram {
	var h Histogram
	at := wordHistograms + int(class%tpmcmd.Classes)*histogramWords
	for i := range h.Count {
		h.Count[i] = p.w[at+i].Load()
	}
	h.Sum = p.w[at+tpmcmd.Buckets].Load()
	return h
}

// ReadResults reads how many commands ended with each result.
func (p *Page) ReadResults() (r [tpmcmd.Results]uint64) {
	for i := range r {
		r[i] = p.w[wordResults+i].Load()
	}
	return r
}
