// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// evil is a Transport to a card that answers as a test says. It runs in the
// caller's goroutine.
type evil struct {
	mem    []byte
	events []int
	regs   map[uint64]uint32
	answer func(e *abi.CompletionEntry) // changes the answer to OpCardIdentify
	raw    []byte                       // instead of the entry, if not nil
	err    error
}

func (c *evil) ReadConfig(uint64, []byte) error  { return c.err }
func (c *evil) WriteConfig(uint64, []byte) error { return c.err }
func (c *evil) SetVectors(events []int) error    { c.events = events; return nil }
func (c *evil) Reset() error                     { return c.err }
func (c *evil) Err() error                       { return c.err }

func (c *evil) Close() error {
	if c.mem != nil {
		unix.Munmap(c.mem)
		c.mem = nil
	}
	return nil
}

func (c *evil) Map(fd int, _, size uint64) (err error) {
	c.mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

func (c *evil) Read(off uint64, b []byte) error {
	binary.LittleEndian.PutUint32(b, c.regs[off])
	return c.err
}

func (c *evil) Post(off uint64, _ []byte) error {
	if off != abi.DoorbellOffset(0)+abi.DoorbellTail {
		return c.err
	}
	// In place: the page of the answer.
	abi.AppendCardIdentity(c.mem[:pageAnswer*abi.PageSize], &abi.CardIdentity{Min: 1, Max: 1, Slots: 1, MaxPayload: abi.MaxPayload})
	e := abi.CompletionEntry{Completion: abi.Completion{Op: abi.OpCardIdentify}, Length: abi.CardIdentitySize, Phase: true}
	if c.answer != nil {
		c.answer(&e)
	}
	entry := abi.AppendCompletionEntry(nil, &e)
	if c.raw != nil {
		entry = c.raw
	}
	copy(c.mem[pageCQ*abi.PageSize:], entry)
	signal(c.events[0])
	return c.err
}

// TestHostileCard: whatever a card says, Open ends with an error, in time.
func TestHostileCard(t *testing.T) {
	ones := make([]byte, abi.CompletionEntrySize)
	for i := range ones {
		ones[i] = 0xff
	}
	for _, tc := range []struct {
		name   string
		change func(c *evil)
		ok     bool
	}{
		{"none of it", func(*evil) {}, true},
		{"other magic", func(c *evil) { c.regs[abi.RegMagic] = 0xffffffff }, false},
		{"other major version", func(c *evil) { c.regs[abi.RegVersion] = 2 << 16 }, false},
		{"fatal", func(c *evil) { c.regs[abi.RegStatus] = abi.StatusFatal }, false},
		{"never ready", func(c *evil) { c.regs[abi.RegStatus] = 0 }, false},
		{"gone", func(c *evil) { c.err = errors.New("gone") }, false},
		{"no completion, queue dead", func(c *evil) { c.raw = make([]byte, abi.CompletionEntrySize); clear(c.regs); c.ready() }, false},
		{"no completion", func(c *evil) { c.raw = make([]byte, abi.CompletionEntrySize) }, false},
		{"all ones", func(c *evil) { c.raw = ones }, false},
		{"length of 4 GiB", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Length = 1<<32 - 1 } }, false},
		{"short answer", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Length-- } }, false},
		{"other opcode", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Op++ } }, false},
		{"other number", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Seq++ } }, false},
		{"other queue", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Queue++ } }, false},
		{"refusal", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Status = abi.StatusInternal } }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &evil{regs: map[uint64]uint32{}}
			c.ready()
			c.regs[abi.DoorbellOffset(0)+abi.DoorbellState] = abi.QueueState{Life: abi.QueueLive}.Word()
			tc.change(c)
			card, err := Open(Config{
				Open:         func(func()) (Transport, error) { return c, nil },
				AdminTimeout: 300 * time.Millisecond,
			})
			if (err == nil) != tc.ok {
				t.Errorf("Open: %v, want success %t", err, tc.ok)
			}
			if err == nil {
				card.Close()
			}
			if c.mem != nil {
				t.Error("the transport was not closed")
			}
		})
	}
}

// ready sets the registers of a card that is.
func (c *evil) ready() {
	c.regs[abi.RegMagic] = abi.RegistersMagic
	c.regs[abi.RegVersion] = abi.RegistersVersion
	c.regs[abi.RegStatus] = abi.StatusReady
	c.regs[abi.RegCap+4] = 1 << 16
}
