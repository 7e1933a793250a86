// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// tpm is what the slot needs of the engine.
type tpm interface {
	Manufacture() error
	Load(perm, vol []byte) error
	Stop()
	Process(locality uint8, cmd, resp []byte) (n int, stored bool, err error)
	Hash(data []byte) error
	Stored(dst []byte) []byte
	Volatile(dst []byte) (int, error)
}

var _ tpm = (*engine.Engine)(nil)

// slot is one TPM and its state. One goroutine owns it.
type slot struct {
	log   logger
	tpm   tpm
	store storage
	seals *sealed.Slot
	vol   *volatileFile // nil until the first power-on

	state  durable // as on disk
	bound  binding // names it
	epoch  uint64  // of new states
	used   uint64  // newest generation that was ever used
	minSeq uint64  // last number on record, as far as is known: see wire.Setup
	undid  bool    // the last write failed, and that is in the log
	over   bool    // the run on disk ended with the machine's last boot

	mapTested bool // PCRs can be mapped: see slot.tryMapping

	serial  uint32          // of the committed checkpoint, which is also in blob
	journal int             // committed bytes of journal
	entries *sealed.Journal // of the committed checkpoint; nil if not needed yet
	flags   uint32          // of the last recorded moment

	phase    abi.SlotState
	seq      uint64 // last sequence number on record
	response []byte // to it; capacity abi.MaxPayload
	stats    wire.Counters

	now     moment // scratch: of the command under way
	stored  []byte // scratch: permanent state of the last command, secret
	image   []byte // scratch: state file in the making, secret
	plain   []byte // scratch: checkpoint or journal entry in the making, secret
	blob    []byte // scratch: the same, sealed
	frame   []byte // scratch: journal entry, sealed
	scratch []byte // scratch: responses of commands of our own
}

// newSlot gives a slot without a state. It closes storage and seals in the end.
func newSlot(st storage, seals *sealed.Slot, t tpm, log logger) *slot {
	return &slot{
		log: log, tpm: t, store: st, seals: seals,
		response: make([]byte, 0, abi.MaxPayload),
		plain:    make([]byte, maxCheckpoint),
		blob:     make([]byte, 0, slotSize),
		frame:    make([]byte, 0, maxEntry+16),
		scratch:  make([]byte, abi.MaxPayload),
	}
}

// adoptBlob opens a sealed permanent state, which becomes the slot's.
func (s *slot) adoptBlob(blob []byte) error {
	d, b, err := openState(s.seals, blob)
	if err != nil {
		return err
	}
	s.state, s.bound = d, b
	s.used = max(s.used, b.generation)
	s.epoch = max(s.epoch, b.epoch)
	return nil
}

// look looks into the volatile file before the power-on, for the last sequence
// number, and whether it is another slot's: that is an operator's mistake, and
// better seen at once.
func (s *slot) look() error {
	s.seq = s.minSeq
	v, err := openVolatile(s.store, s.state.slotID)
	if errors.Is(err, errForeign) {
		return err
	}
	if err != nil {
		// Where a later moment of this boot is known of, the file was tampered
		// with: the power-on will find it and fail.
		s.over = errors.Is(err, errOtherBoot) && s.minSeq == 0
		return nil
	}
	defer v.close()
	if c, _, err := s.current(v); err == nil {
		s.seq = max(s.seq, c.seq)
		clear(c.response)
		clear(c.volatile)
	}
	return nil
}

// execute runs one command under a sequence number and writes its response
// to resp, which has room for abi.MaxPayload bytes. cmd may be overwritten.
func (s *slot) execute(seq uint64, locality uint8, cmd, resp []byte) (n int, flags abi.Flags, err error) {
	n, err = s.recorded(seq, resp)
	switch {
	case err != nil:
		return 0, 0, err
	case n > 0:
		return n, abi.FlagReplayed, nil
	}
	n, err = s.run(seq, locality, cmd, resp)
	if err != nil {
		s.fail("command could not be finished", err)
		return 0, 0, errFailed
	}
	return n, 0, nil
}

// refuseCanceled is execute for a command that was canceled before it began. One that
// is on record was done all the same.
func (s *slot) refuseCanceled(seq uint64, resp []byte) (n int, flags abi.Flags, err error) {
	n, err = s.recorded(seq, resp)
	if n > 0 {
		flags = abi.FlagReplayed
	} else if err == nil {
		n = putResponse(resp, rcCanceled)
	}
	return n, flags, err
}

// recorded gives the response to a number that is on record. 0 without an error: the
// number is a new one, and may run.
func (s *slot) recorded(seq uint64, resp []byte) (int, error) {
	switch {
	case s.phase == abi.SlotOff:
		return 0, fmt.Errorf("execute before power-on: %w", errOrder)
	case s.phase == abi.SlotFailed:
		return 0, errFailed
	case seq == s.seq && len(s.response) > 0:
		return copy(resp, s.response), nil
	case seq <= s.seq:
		return 0, fmt.Errorf("number %d after %d: %w", seq, s.seq, errSeq)
	}
	return 0, nil
}

// run executes a command and makes its effect safe, before it returns.
func (s *slot) run(seq uint64, locality uint8, cmd, resp []byte) (int, error) {
	if s.state.mapped() && changesHostPCR(cmd) {
		s.stats.Commands++
		return putResponse(resp, rcLocality), nil
	}
	c, staged := s.classOf(cmd)
	code, exact, fresh := commandCode(cmd), needsExact(cmd), startsClear(cmd) // cmd may be overwritten
	n, stored, err := s.tpm.Process(locality, cmd, resp)
	if err != nil {
		return 0, err
	}
	s.stats.Commands++
	rc := responseCode(resp[:n])
	exact = exact && rc == rcSuccess && s.state.flags&stateFlagExact == 0
	m := &s.now // a moment of its own would be on the heap, for each command
	*m = moment{seq: seq, resp: resp[:n], run: s.state.run, bound: s.bound}
	if code == ccShutdown && rc == rcSuccess {
		m.flags = flagShutdown
	}
	switch {
	case rc == rcFailure:
		return 0, errors.New("the TPM is in failure mode")
	case code == ccStartup && rc == rcSuccess && s.hosted(fresh):
		return s.startHosted(m, fresh, resp)
	case stored || exact:
		return s.saveDurable(m, exact, resp)
	case c == classPure, c == classJournal && rc != rcSuccess:
		clear(s.plain[:staged])
		return n, nil
	case c == classJournal:
		s.appendJournal(seq, locality, staged-entryHeaderSize, resp[:n])
		return n, nil
	}
	return n, s.checkpoint(m)
}

// classOf gives a command's class in the slot's present state, and stages it
// if it goes to the journal: so many bytes of s.plain then hold it.
func (s *slot) classOf(cmd []byte) (c class, staged int) {
	if s.state.flags&stateFlagExact != 0 {
		return classFull, 0
	}
	c = classify(cmd)
	if c != classJournal {
		return c, 0
	}
	if !s.stage(cmd) {
		return classFull, 0
	}
	return c, entryHeaderSize + len(cmd)
}

// fail puts the slot out of service until reset or a new run.
func (s *slot) fail(what string, err error) {
	s.log.fail(what+"; the TPM answers failure until the virtual machine is reset", "err", err)
	s.tpm.Stop()
	s.phase = abi.SlotFailed
}

// close ends the TPM. Nothing is left to save: what was acknowledged is saved.
func (s *slot) close() {
	s.tpm.Stop()
	if s.vol != nil {
		s.vol.close()
	}
	clear(s.state.permanent)
	clear(s.response)
	s.seals.Close()
	s.store.close()
}
