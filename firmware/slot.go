// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
)

// tpm is what the slot needs of the engine.
type tpm interface {
	Manufacture() error
	Load(perm, vol []byte) error
	Stop()
	Process(locality uint8, cmd, resp []byte) (n int, stored bool, err error)
	Stored(dst []byte) []byte
	Volatile(dst []byte) (int, error)
}

var _ tpm = (*engine.Engine)(nil)

// slot is one TPM and its state. One goroutine owns it.
type slot struct {
	log logger
	tpm tpm
	dir *stateDir
	vol *volatileFile // nil until the first power-on

	state   durable  // as on disk
	sum     stateSum // of the file on disk
	unsure  bool     // state may not be what is on disk: write it anew
	undid   bool     // the last write failed, and that is in the log
	over    bool     // the run on disk ended with the machine's last boot
	serial  uint32   // of the committed checkpoint
	journal int      // committed bytes of journal
	flags   uint32   // of the last recorded moment

	phase    abi.SlotState
	seq      uint64 // last sequence number on record
	response []byte // to it; capacity abi.MaxPayload
	stats    counters

	stored  []byte // scratch: permanent state of the last command, secret
	image   []byte // scratch: state file in the making, secret
	scratch []byte // scratch: responses of commands of our own
}

type counters struct {
	commands, checkpoints, journaled, durable uint64
}

// openSlot locks the directory and reads the state, or makes a new TPM if
// the directory is new. The TPM does not run yet.
func openSlot(path string, t tpm, log logger) (*slot, error) {
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	s := &slot{
		log: log, tpm: t, dir: dir,
		response: make([]byte, 0, abi.MaxPayload),
		scratch:  make([]byte, abi.MaxPayload),
	}
	fresh, err := dir.isNew()
	if err == nil && fresh {
		err = s.create()
	} else if err == nil {
		err = s.read()
	}
	if err != nil {
		dir.close()
		return nil, err
	}
	return s, nil
}

// create makes a new TPM in a new directory.
func (s *slot) create() error {
	d := durable{generation: 1, engine: engine.Version()}
	rand.Read(d.slotID[:])
	rand.Read(d.run[:]) // no run at all: nobody can name it
	if err := s.tpm.Manufacture(); err != nil {
		return err
	}
	d.permanent = s.tpm.Stored(nil)
	s.tpm.Stop()
	if len(d.permanent) == 0 {
		return fmt.Errorf("libtpms stored no state for a new TPM")
	}
	image, sum := appendState(nil, &d)
	defer clear(image)
	if err := s.dir.replace(s.dir, image); err != nil {
		return err
	}
	if err := s.dir.mark(d.slotID); err != nil {
		return err
	}
	s.state, s.sum = d, sum
	s.log.info("made a new TPM", "dir", s.dir.path, "slot", fmt.Sprintf("%x", d.slotID))
	return nil
}

// read reads the state, and checks already here that the volatile file is not
// another slot's: that is an operator's mistake, and better seen at once.
func (s *slot) read() error {
	b, err := s.dir.readState()
	if err != nil {
		return err
	}
	defer clear(b)
	d, sum, err := parseState(b)
	if err != nil {
		return fmt.Errorf("%s: %w; restore it from a backup, or name an empty directory to make a new TPM", s.dir.path, err)
	}
	if err := s.dir.checkMark(d.slotID); err != nil {
		return fmt.Errorf("%s: %w", s.dir.path, err)
	}
	d.permanent = bytes.Clone(d.permanent)
	s.state, s.sum = d, sum
	v, err := openVolatile(s.dir, d.slotID)
	if isForeign(err) {
		return fmt.Errorf("%s: %w", s.dir.path, err)
	}
	s.over = errors.Is(err, errOtherBoot)
	if err == nil {
		if c, _, err := v.current(sum); err == nil {
			s.seq = c.seq
		}
		v.close()
	}
	return nil
}

// execute runs one command under a sequence number and writes its response
// to resp, which has room for abi.MaxPayload bytes. cmd may be overwritten.
func (s *slot) execute(seq uint64, locality uint8, cmd, resp []byte) (n int, flags abi.Flags, err error) {
	switch {
	case s.phase == abi.SlotOff:
		return 0, 0, fmt.Errorf("execute before power-on: %w", errOrder)
	case s.phase == abi.SlotFailed:
		return 0, 0, errFailed
	case seq == s.seq && len(s.response) > 0:
		return copy(resp, s.response), abi.FlagReplayed, nil
	case seq <= s.seq:
		return 0, 0, fmt.Errorf("number %d after %d: %w", seq, s.seq, errSeq)
	}
	n, err = s.run(seq, locality, cmd, resp)
	if err != nil {
		s.fail("command could not be finished", err)
		return 0, 0, errFailed
	}
	return n, 0, nil
}

// run executes a command and makes its effect safe, before it returns.
func (s *slot) run(seq uint64, locality uint8, cmd, resp []byte) (int, error) {
	c := s.classOf(cmd)
	code, exact := commandCode(cmd), needsExact(cmd) // cmd may be overwritten
	n, stored, err := s.tpm.Process(locality, cmd, resp)
	if err != nil {
		return 0, err
	}
	s.stats.commands++
	rc := responseCode(resp[:n])
	exact = exact && rc == rcSuccess && s.state.flags&stateFlagExact == 0
	m := moment{seq: seq, resp: resp[:n], run: s.state.run, bound: s.sum}
	if code == ccShutdown && rc == rcSuccess {
		m.flags = flagShutdown
	}
	switch {
	case rc == rcFailure:
		return 0, errors.New("the TPM is in failure mode")
	case stored || exact:
		return s.saveDurable(&m, exact, resp)
	case c == classPure, c == classJournal && rc != rcSuccess:
		return n, nil
	case c == classJournal:
		s.appendJournal(seq, locality, len(cmd), resp[:n])
		return n, nil
	}
	return n, s.checkpoint(&m)
}

// classOf gives a command's class in the slot's present state, and stages it
// if it goes to the journal.
func (s *slot) classOf(cmd []byte) class {
	if s.state.flags&stateFlagExact != 0 {
		return classFull
	}
	c := classify(cmd)
	if c == classJournal && !s.stage(cmd) {
		return classFull
	}
	return c
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
	s.dir.close()
}
