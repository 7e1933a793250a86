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

// vectors is the least a function has to have: one MSI-X vector for the admin
// queue and one for a slot.
const vectors = 2

// maxQueues is how many queues the driver uses: the admin queue and those of the
// first 64 slots. Their pages are mapped for the card at once, each by itself if
// there is an IOMMU of QEMU's in between.
const maxQueues = 65

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
	queues int        // that this card and this driver have
	admin  *ring      // nil: to be reset and enabled
	rings  map[int]*ring
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
		f.endRings()
		err := f.t.Reset()
		if err == nil {
			err = f.examine()
		}
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

// endRings gives up the queues of all slots: their users notice, and open their
// slots again.
func (f *function) endRings() {
	for _, r := range f.rings {
		r.end()
	}
	clear(f.rings)
}

// dropLocked lets go of the transport and of all that the card saw. Memory that
// users of rings still look at stays until they are done.
func (f *function) dropLocked() {
	f.endRings()
	f.endAdmin()
	if f.t != nil {
		f.t.Close()
	}
	if f.mem != nil {
		f.mem.release()
	}
	f.t, f.mem = nil, nil
}

// endAdmin gives up the admin queue, so that the function is reset before it is
// used again.
func (f *function) endAdmin() {
	if f.admin != nil {
		f.admin.end()
		f.admin.release()
		f.admin = nil
	}
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
	if err := f.examine(); err != nil {
		return err
	}
	if err := f.t.SetVectors(f.mem.events[:f.queues]); err != nil {
		return fmt.Errorf("set vectors: %w", err)
	}
	return f.enable()
}

// examine makes the registers accessible and looks whether they are a card's.
func (f *function) examine() error {
	command := []byte{commandMemory | commandBusMaster, 0}
	if err := f.t.WriteConfig(pciCommand, command); err != nil {
		return fmt.Errorf("set bus master: %w", err)
	}
	var words [4]uint32
	for i, off := range []uint64{abi.RegMagic, abi.RegVersion, abi.RegCap, abi.RegCap + 4} {
		var err error
		if words[i], err = f.read(off); err != nil {
			return err
		}
	}
	if words[0] != abi.RegistersMagic || words[1]>>16 != abi.RegistersVersion>>16 {
		return fmt.Errorf("registers begin %#x, %#x: %w", words[0], words[1], errNoCard)
	}
	caps := abi.ParseCapabilities(uint64(words[2]) | uint64(words[3])<<32)
	if caps.Slots < 1 || caps.Vectors < vectors || caps.MaxEntries < ringEntries {
		return fmt.Errorf("capabilities %+v: %w", caps, errNoCard)
	}
	f.queues = min(1+int(caps.Slots), int(caps.Vectors), maxQueues)
	return nil
}

// enable resets the card's queues and takes the admin queue into service.
func (f *function) enable() error {
	if err := f.write(abi.RegControl, abi.ControlReset); err != nil {
		return err
	}
	f.admin = newRing(f.t, f.mem, 0)
	err := f.startAdmin(f.admin)
	if err == nil {
		err = f.identify()
	}
	if err != nil {
		f.endAdmin()
	}
	return err
}

func (f *function) startAdmin(r *ring) error {
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
	return f.awaitReady()
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
func (f *function) identify() error {
	b, err := command(f.admin, &abi.Submission{Op: abi.OpCardIdentify}, f.cfg.AdminTimeout)
	if err != nil {
		return err
	}
	id, err := abi.ParseCardIdentity(b)
	if err != nil {
		return err
	}
	if id.Min > abi.Version || id.Max < abi.MinVersion || id.Slots < 1 || id.MaxPayload < abi.MaxPayload {
		return fmt.Errorf("card is %+v: %w", id, coproc.ErrUnsupported)
	}
	return nil
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
