// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// evil is a Transport to a card that answers as a test says. It runs in the
// caller's goroutine.
type evil struct {
	mem    []byte
	events []int
	regs   map[uint64]uint32
	taken  [maxQueues]uint32                              // submissions
	done   [maxQueues]uint32                              // completions written
	reply  func(sub *abi.Submission) (abi.Status, []byte) // nil: as a card does
	answer func(e *abi.CompletionEntry)                   // changes a completion
	raw    []byte                                         // instead of the entry, if not nil
	err    error

	timeout time.Duration // of the driver's, for what it asks
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
	if c.err != nil || off < abi.BarDoorbells || off%abi.DoorbellStride != abi.DoorbellTail {
		return c.err
	}
	q := int((off - abi.BarDoorbells) / abi.DoorbellStride)
	at := c.taken[q] % ringEntries
	sub, err := abi.ParseSubmissionEntry(c.page(q, pageSQ)[at*abi.SubmissionEntrySize:][:abi.SubmissionEntrySize])
	if err != nil {
		return err
	}
	c.taken[q]++
	sub.Payload = c.page(q, pagePayload)[:sub.Length]
	reply := c.reply
	if reply == nil {
		reply = honest
	}
	status, payload := reply(&sub.Submission)
	copy(c.page(q, pageAnswer), payload)
	e := abi.CompletionEntry{
		Completion: abi.Completion{Op: sub.Op, Status: status, Slot: sub.Slot, Seq: sub.Seq},
		Length:     uint32(len(payload)), Queue: uint16(q), Phase: c.done[q]/ringEntries%2 == 0,
	}
	if c.answer != nil {
		c.answer(&e)
	}
	entry := abi.AppendCompletionEntry(nil, &e)
	if c.raw != nil {
		entry = c.raw
	}
	c.complete(q, entry)
	return c.err
}

// complete writes a completion where the next one belongs.
func (c *evil) complete(q int, entry []byte) {
	copy(c.page(q, pageCQ)[c.done[q]%ringEntries*abi.CompletionEntrySize:], entry)
	c.done[q]++
	signal(c.events[q])
}

func (c *evil) page(queue, page int) []byte {
	return c.mem[(queue*queuePages+page)*abi.PageSize:][:abi.PageSize]
}

// honest answers as a card does that has one slot, number 0.
func honest(sub *abi.Submission) (abi.Status, []byte) {
	switch sub.Op {
	case abi.OpCardIdentify:
		return abi.StatusOK, abi.AppendCardIdentity(nil, &abi.CardIdentity{Min: 1, Max: 1, Slots: 1, MaxPayload: abi.MaxPayload})
	case abi.OpSlotChallenge:
		return abi.StatusOK, abi.AppendChallenge(nil, &abi.Challenge{Nonce: [32]byte{1}})
	case abi.OpIdentify:
		return abi.StatusOK, abi.AppendIdentity(nil, &abi.Identity{Version: abi.Version, Slots: 1, MaxPayload: abi.MaxPayload})
	case abi.OpSlotOpen:
		msg := abi.OpenMessage([16]byte{}, [16]byte{}, [32]byte{1})
		if !ed25519.Verify(testKey().Public().(ed25519.PublicKey), msg, sub.Payload) {
			return abi.StatusDenied, []byte("wrong\x1b[2J proof")
		}
	}
	return abi.StatusOK, nil
}

// testKey is an access key for tests.
func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func newEvil() *evil {
	c := &evil{regs: map[uint64]uint32{}, timeout: hang}
	c.ready()
	for q := range maxQueues {
		c.regs[abi.DoorbellOffset(q)+abi.DoorbellState] = abi.QueueState{Life: abi.QueueLive}.Word()
	}
	return c
}

// ready sets the registers of a card that is.
func (c *evil) ready() {
	c.regs[abi.RegMagic] = abi.RegistersMagic
	c.regs[abi.RegVersion] = abi.RegistersVersion
	c.regs[abi.RegStatus] = abi.StatusReady
	caps := abi.Capabilities{MaxEntries: abi.MaxQueueEntries, Slots: 2, Vectors: 3, ReadyTimeout: 1}.Word()
	c.regs[abi.RegCap], c.regs[abi.RegCap+4] = uint32(caps), uint32(caps>>32)
}

func (c *evil) open() (*Card, error) {
	return Open(Config{
		Open:         func(func()) (Transport, error) { return c, nil },
		Key:          func(string) (ed25519.PrivateKey, error) { return testKey(), nil },
		AdminTimeout: c.timeout,
	})
}

// TestHostileCard: whatever a card says, Open ends with an error, in time.
func TestHostileCard(t *testing.T) {
	caps := func(caps abi.Capabilities) func(*evil) {
		return func(c *evil) { c.regs[abi.RegCap], c.regs[abi.RegCap+4] = uint32(caps.Word()), uint32(caps.Word()>>32) }
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
		{"no slots", caps(abi.Capabilities{MaxEntries: 64, Vectors: 2, ReadyTimeout: 1}), false},
		{"one vector", caps(abi.Capabilities{MaxEntries: 64, Slots: 1, Vectors: 1, ReadyTimeout: 1}), false},
		{"queues of 2", caps(abi.Capabilities{MaxEntries: 2, Slots: 1, Vectors: 2, ReadyTimeout: 1}), false},
		{"more of all than there can be", caps(abi.Capabilities{MaxEntries: 0xffff, Slots: 0xffff, Vectors: 0xffff, ReadyTimeout: 0xffff}), true},
		{"no completion, queue dead", func(c *evil) { c.raw = make([]byte, abi.CompletionEntrySize); clear(c.regs); c.ready() }, false},
		{"no completion", func(c *evil) { c.raw = make([]byte, abi.CompletionEntrySize) }, false},
		{"all ones", func(c *evil) { c.raw = bytes.Repeat([]byte{0xff}, abi.CompletionEntrySize) }, false},
		{"length of 4 GiB", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Length = 1<<32 - 1 } }, false},
		{"short answer", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Length-- } }, false},
		{"other opcode", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Op++ } }, false},
		{"other number", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Seq++ } }, false},
		{"other slot", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Slot++ } }, false},
		{"other queue", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Queue++ } }, false},
		{"refusal", func(c *evil) { c.answer = func(e *abi.CompletionEntry) { e.Status = abi.StatusInternal } }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newEvil()
			tc.change(c)
			if !tc.ok {
				c.timeout = 300 * time.Millisecond
			}
			card, err := c.open()
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

// TestHostileSlots: whatever a card says of its slots, OpenSlot ends with an
// error, and the driver keeps its queues apart.
func TestHostileSlots(t *testing.T) {
	number := func(n uint32) func(*abi.Submission) (abi.Status, []byte) {
		return func(sub *abi.Submission) (abi.Status, []byte) {
			if sub.Op == abi.OpSlotChallenge {
				return abi.StatusOK, abi.AppendChallenge(nil, &abi.Challenge{Number: n})
			}
			return honest(sub)
		}
	}
	refuse := func(op abi.Opcode, status abi.Status) func(*abi.Submission) (abi.Status, []byte) {
		return func(sub *abi.Submission) (abi.Status, []byte) {
			if sub.Op == op {
				return status, []byte("because\n\x1b[31m")
			}
			return honest(sub)
		}
	}
	for _, tc := range []struct {
		name  string
		reply func(*abi.Submission) (abi.Status, []byte)
		want  error
	}{
		{"none of it", honest, nil},
		{"slot without a queue", number(2), coproc.ErrUnsupported},
		{"the last number of all", number(1<<32 - 1), coproc.ErrUnsupported},
		{"another slot's challenge", number(1), coproc.ErrDenied},
		{"short challenge", func(sub *abi.Submission) (abi.Status, []byte) {
			status, b := honest(sub)
			if sub.Op == abi.OpSlotChallenge {
				b = b[1:]
			}
			return status, b
		}, abi.ErrMalformed},
		{"no such name", refuse(abi.OpSlotChallenge, abi.StatusNoSlot), coproc.ErrNotFound},
		{"denied", refuse(abi.OpSlotOpen, abi.StatusDenied), coproc.ErrDenied},
		{"locked", refuse(abi.OpSlotOpen, abi.StatusLocked), coproc.ErrLocked},
		{"no queue", refuse(abi.OpQueueCreate, abi.StatusInUse), coproc.ErrInUse},
		{"slot does not identify itself", refuse(abi.OpIdentify, abi.StatusCorrupt), coproc.ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newEvil()
			c.reply = tc.reply
			card, err := c.open()
			if err != nil {
				t.Fatal(err)
			}
			defer card.Close()
			s, err := card.OpenSlot(t.Context(), "a")
			if !errors.Is(err, tc.want) || (tc.want == nil) != (err == nil) {
				t.Fatalf("OpenSlot: %v, want %v", err, tc.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error %q has what a terminal acts on", err)
			}
			if err == nil {
				if _, err := card.OpenSlot(t.Context(), "b"); !errors.Is(err, coproc.ErrInUse) {
					t.Errorf("OpenSlot of another slot of the same number: %v, want ErrInUse", err)
				}
				s.Close()
			}
			if card.fn.rings[1] != nil {
				t.Error("a queue is left")
			}
		})
	}
}

// TestReservedCommands: what opens slots goes through OpenSlot only.
func TestReservedCommands(t *testing.T) {
	card, err := newEvil().open()
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	for _, op := range []abi.Opcode{abi.OpSlotOpen, abi.OpQueueCreate, abi.OpQueueDelete} {
		if _, _, err := card.Command(t.Context(), &abi.Submission{Op: op}); !errors.Is(err, coproc.ErrUnsupported) {
			t.Errorf("Command(%#x): %v, want ErrUnsupported", uint8(op), err)
		}
	}
	b, _, err := card.Command(t.Context(), &abi.Submission{Op: abi.OpCardIdentify})
	if id, perr := abi.ParseCardIdentity(b); err != nil || perr != nil || id.Slots != 1 {
		t.Errorf("Command(identify) = %+v, %v, %v", id, err, perr)
	}
}
