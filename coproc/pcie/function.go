// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// vectors is the number of queues, and of the vectors that tell of them.
const vectors = 2

// Configuration space that the driver writes (PCI Local Bus 3.0, 6.2.2).
const (
	pciCommand       = 0x04
	commandMemory    = 1 << 1
	commandBusMaster = 1 << 2
)

var errNoCard = errors.New("not a card that this driver knows")

// function is the PCI function, through all resets and transports. It may be
// used from any goroutine.
type function struct {
	cfg *Config

	mu     sync.Mutex // guards what follows
	t      Transport  // nil: to be opened
	mem    *memory    // of t
	admin  *ring      // nil: to be reset and enabled
	closed bool
}

// ready brings the function to where its admin queue answers, by what it takes.
func (f *function) ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readyLocked()
}

func (f *function) readyLocked() error {
	if f.closed {
		return coproc.ErrClosed
	}
	if f.t != nil && f.t.Err() == nil {
		if f.admin != nil {
			return nil
		}
		f.cfg.Logger.Warn("card is reset")
		err := f.t.Reset()
		if err == nil {
			err = f.enable()
		}
		if err == nil {
			return nil
		}
		f.cfg.Logger.Warn("reset of the card did not help", "error", err)
	}
	f.dropLocked()
	if err := f.open(); err != nil {
		f.dropLocked()
		return err
	}
	return nil
}

// dropLocked lets go of the transport and of all that the card saw.
func (f *function) dropLocked() {
	if f.t != nil {
		f.t.Close()
	}
	if f.mem != nil {
		f.mem.close()
	}
	f.t, f.mem, f.admin = nil, nil, nil
}

// open opens the transport and gives the card its memory.
func (f *function) open() (err error) {
	if f.mem, err = newMemory(); err != nil {
		return err
	}
	if f.t, err = f.cfg.Open(f.mem.wake); err != nil {
		return fmt.Errorf("open card: %w", err)
	}
	if err := f.t.Map(f.mem.fd, memoryIOVA, memorySize); err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	if err := f.t.SetVectors(f.mem.events[:]); err != nil {
		return fmt.Errorf("set vectors: %w", err)
	}
	return f.enable()
}

// enable resets the card's queues and takes the admin queue into service.
func (f *function) enable() error {
	command := []byte{commandMemory | commandBusMaster, 0}
	if err := f.t.WriteConfig(pciCommand, command); err != nil {
		return fmt.Errorf("set bus master: %w", err)
	}
	magic, err := f.read(abi.RegMagic)
	if err != nil {
		return err
	}
	version, err := f.read(abi.RegVersion)
	if err != nil {
		return err
	}
	if magic != abi.RegistersMagic || version>>16 != abi.RegistersVersion>>16 {
		return fmt.Errorf("registers begin %#x, %#x: %w", magic, version, errNoCard)
	}
	if err := f.write(abi.RegControl, abi.ControlReset); err != nil {
		return err
	}
	r := newRing(f.t, f.mem, 0)
	for _, reg := range []struct {
		off uint64
		v   uint32
	}{
		{abi.RegAdminSQ, uint32(r.at[pageSQ])}, {abi.RegAdminSQ + 4, uint32(r.at[pageSQ] >> 32)},
		{abi.RegAdminCQ, uint32(r.at[pageCQ])}, {abi.RegAdminCQ + 4, uint32(r.at[pageCQ] >> 32)},
		{abi.RegAdminEntries, ringEntries},
		{abi.RegControl, abi.ControlEnable},
	} {
		if err := f.write(reg.off, reg.v); err != nil {
			return err
		}
	}
	if err := f.awaitReady(); err != nil {
		return err
	}
	return f.identify(r)
}

// awaitReady waits for the card to be ready, as long as it says it may take.
func (f *function) awaitReady() error {
	high, err := f.read(abi.RegCap + 4)
	if err != nil {
		return err
	}
	limit := time.Duration(abi.ParseCapabilities(uint64(high)<<32).ReadyTimeout) * 100 * time.Millisecond
	for deadline := time.Now().Add(min(limit, f.cfg.AdminTimeout)); ; time.Sleep(time.Millisecond) {
		status, err := f.read(abi.RegStatus)
		switch {
		case err != nil:
			return err
		case status&abi.StatusFatal != 0:
			return fmt.Errorf("card status %#x: %w", status, errStopped)
		case status&abi.StatusReady != 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("card is not ready, status %#x: %w", status, coproc.ErrTimeout)
		}
	}
}

// identify asks the card over its admin queue, which is ours if that works.
func (f *function) identify(r *ring) error {
	c, err := command(r, &abi.Submission{Op: abi.OpCardIdentify}, f.cfg.AdminTimeout)
	if err != nil {
		return err
	}
	id, err := abi.ParseCardIdentity(c.Payload)
	if err != nil {
		return err
	}
	if id.Min > abi.Version || id.Max < abi.MinVersion || id.Slots < 1 || id.MaxPayload < abi.MaxPayload {
		return fmt.Errorf("card is %+v: %w", id, coproc.ErrUnsupported)
	}
	f.admin = r
	return nil
}

// run runs an admin command on a function that is ready. If it gets no answer
// the function is reset before the next.
func (f *function) run(sub *abi.Submission) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runLocked(sub)
}

func (f *function) runLocked(sub *abi.Submission) error {
	if f.admin == nil {
		return errStopped
	}
	_, err := command(f.admin, sub, f.cfg.AdminTimeout)
	if _, refused := errors.AsType[*coproc.Error](err); err != nil && !refused {
		f.admin = nil
	}
	return err
}

// command runs one submission that must succeed.
func command(r *ring, sub *abi.Submission, timeout time.Duration) (abi.Completion, error) {
	if err := r.submit(sub); err != nil {
		return abi.Completion{}, err
	}
	c, err := r.wait(sub, timeout)
	if err != nil {
		return c, err
	}
	if c.Status != abi.StatusOK {
		return c, &coproc.Error{Op: "admin", Status: c.Status, Err: coproc.StatusError(c.Status)}
	}
	return c, nil
}

// newSlotRing makes the function ready and gives slot 0 a new queue.
func (f *function) newSlotRing() (*ring, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.readyLocked(); err != nil {
		return nil, err
	}
	// Whoever had the queue before is not to use its pages any more.
	if err := f.runLocked(&abi.Submission{Op: abi.OpQueueDelete}); err != nil {
		return nil, fmt.Errorf("delete queue: %w", err)
	}
	r := newRing(f.t, f.mem, 1)
	payload := abi.AppendQueueConfig(nil, &abi.QueueConfig{
		SQ: r.at[pageSQ], CQ: r.at[pageCQ], Entries: ringEntries, Vector: 1,
	})
	if err := f.runLocked(&abi.Submission{Op: abi.OpQueueCreate, Payload: payload}); err != nil {
		return nil, fmt.Errorf("create queue: %w", err)
	}
	return r, nil
}

// close lets go of the card. It is idempotent.
func (f *function) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.dropLocked()
}

func (f *function) read(off uint64) (uint32, error) {
	var b [4]byte
	if err := f.t.Read(off, b[:]); err != nil {
		return 0, fmt.Errorf("read register %#x: %w", off, err)
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

func (f *function) write(off uint64, v uint32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	if err := f.t.Post(off, b[:]); err != nil {
		return fmt.Errorf("write register %#x: %w", off, err)
	}
	return nil
}
