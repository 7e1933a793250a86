// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
	"hwvtpm/coproc/internal/slot"
)

// broken is a card behind vfio-user whose first connection breaks what a test says.
// The others, and what its TPM has done, are as they should be.
type broken struct {
	t     *testing.T
	path  string
	spoil func(f *face) // before the first connection's first command
	wild  bool          // responses may be anything
	wait  time.Duration // of the driver's, for any answer
	end   chan struct{} // closed when the test is over
	conns atomic.Int32

	mu       sync.Mutex
	last     uint64 // number of the last command
	executed int
	restarts uint64 // of the slot's worker, as the driver saw it
}

// face is one connection's view of it.
type face struct {
	*evil
	card  *broken
	sock  *net.UnixConn
	fds   []*vfiouser.FD
	calls int
	on    func(call int) // nil: nothing. Before each access of the client's
	done1 bool           // once has done it
	gone  chan struct{}  // closed when the connection is over
	wild  bool           // the memory that the client gives changes all the time

	storms sync.WaitGroup
}

func newBroken(t *testing.T, spoil func(f *face)) *broken {
	b := &broken{t: t, path: filepath.Join(t.TempDir(), "s"), spoil: spoil, wait: hang, end: make(chan struct{})}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			sock, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f := &face{evil: newEvil(), card: b, sock: sock, gone: make(chan struct{})}
			f.reply = f.honest
			if b.conns.Add(1) == 1 && spoil != nil {
				spoil(f)
			}
			serving.Go(func() { f.serve() })
		}
	})
	t.Cleanup(func() {
		close(b.end)
		l.Close()
		serving.Wait()
	})
	return b
}

func (f *face) serve() {
	vfiouser.Serve(f.sock, f) // its error is the test's doing
	close(f.gone)
	f.storms.Wait()
	f.Close()
	for _, fd := range f.fds {
		fd.Close()
	}
}

// call counts what the client asks for.
func (f *face) call() {
	f.calls++
	if f.on != nil {
		f.on(f.calls)
	}
}

func (f *face) Region(index uint32) uint64 {
	if index == vfiouser.RegionConfig {
		return 256
	}
	return abi.BarSize(maxQueues - 1)
}

func (f *face) Vectors() uint32 { return maxQueues }

func (f *face) ReadRegion(index uint32, off uint64, b []byte) error {
	f.call()
	if index == vfiouser.RegionConfig {
		return nil
	}
	return f.Read(off, b)
}

func (f *face) WriteRegion(index uint32, off uint64, b []byte) error {
	f.call()
	if index == vfiouser.RegionConfig {
		return nil
	}
	if off == abi.RegControl && binary.LittleEndian.Uint32(b) == abi.ControlReset {
		f.taken, f.done = [maxQueues]uint32{}, [maxQueues]uint32{}
	}
	return f.Post(off, b)
}

func (f *face) MapDMA(m vfiouser.DMAMap, fd *vfiouser.FD) error {
	f.call()
	defer fd.Close()
	if f.wild {
		f.meddle(fd.Num(), int(m.Size))
	}
	return f.Map(fd.Num(), m.Address, m.Size)
}

func (f *face) UnmapDMA(uint64, uint64) error { return nil }

func (f *face) SetVectors(_ uint32, fds []*vfiouser.FD) {
	f.call()
	for _, fd := range fds {
		f.fds = append(f.fds, fd)
		f.events = append(f.events, fd.Num())
	}
}

func (f *face) Reset() { f.call() }

// honest makes queues anew.
func (f *face) honest(sub *abi.Submission) (abi.Status, []byte) {
	if q := 1 + sub.Slot; sub.Op == abi.OpQueueCreate {
		f.taken[q], f.done[q] = 0, 0
		f.regs[abi.DoorbellOffset(int(q))+abi.DoorbellState] = abi.QueueState{Life: abi.QueueLive}.Word()
	}
	return f.card.honest(sub)
}

// honest executes commands: each once, and the response is its number.
func (b *broken) honest(sub *abi.Submission) (abi.Status, []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch sub.Op {
	case abi.OpPowerOn:
		return abi.StatusOK, abi.AppendPowerOnReply(nil, abi.PowerOnReply{Resumed: b.last > 0, LastSeq: b.last})
	case abi.OpSlotShow:
		return abi.StatusOK, bytes.Clone(sub.Payload)
	case abi.OpExecute:
		if sub.Seq > b.last {
			b.last = sub.Seq
			b.executed++
		}
		return abi.StatusOK, response(sub.Seq)
	}
	return honest(sub)
}

func response(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{0x80, 1, 0, 0, 0, 18, 0, 0, 0, 0}, seq)
}

func (b *broken) open() (*Card, error) {
	return Open(Config{
		Open:    VFIOUser(b.path, b.wait),
		Key:     func(string) (ed25519.PrivateKey, error) { return testKey(), nil },
		Timeout: b.wait, CancelGrace: b.wait, AdminTimeout: b.wait,
	})
}

// use opens the slot of a card and has its TPM execute n commands. Each of them must
// be answered by its own response, or by a failure of the driver's.
func (b *broken) use(card *Card, n int) error {
	s, err := card.OpenSlot(b.t.Context(), "a")
	if err != nil {
		return err
	}
	defer s.Close()
	defer func() { b.restarts = s.(*slot.Slot).Restarts() }()
	if _, err := s.PowerOn(b.t.Context(), coproc.RunID{1}); err != nil {
		return err
	}
	for range n {
		resp := make([]byte, coproc.MaxTransfer)
		size, err := s.Execute(b.t.Context(), coproc.Command{Bytes: cmdGetRandom}, resp)
		if err != nil {
			return err
		}
		b.mu.Lock()
		want := response(b.last)
		b.mu.Unlock()
		if !b.wild && !bytes.Equal(resp[:size], want) && binary.BigEndian.Uint32(resp[6:]) == 0 {
			b.t.Errorf("response %x, want %x", resp[:size], want)
		}
	}
	return nil
}

// try opens the card, uses it, and closes it.
func (b *broken) try() error {
	card, err := b.open()
	if err != nil {
		return err
	}
	return errors.Join(b.use(card, 3), card.Close())
}

// recovers tries until it goes well: what a test has broken is over.
func (b *broken) recovers() {
	b.t.Helper()
	var err error
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); {
		if err = b.try(); err == nil {
			return
		}
	}
	b.t.Errorf("the card is not used again: %v", err)
}

// TestCardVanishes: a card that hangs up or falls silent at any moment, from the first
// access to the last, costs no more than what was under way.
func TestCardVanishes(t *testing.T) {
	total := 0
	whole := newBroken(t, func(f *face) { f.on = func(call int) { total = call } })
	if err := whole.try(); err != nil || whole.executed != 3 || total < 20 {
		t.Fatalf("a card that works: %v, %d commands, %d accesses", err, whole.executed, total)
	}
	for name, vanish := range map[string]func(f *face){
		"hangs up": func(f *face) { f.sock.Close() },
		"silent":   func(f *face) { <-f.card.end },
	} {
		for at := 1; at <= total; at++ {
			t.Run(fmt.Sprintf("%s at %d of %d", name, at, total), func(t *testing.T) {
				t.Parallel()
				b := newBroken(t, func(f *face) {
					f.on = func(call int) {
						if call == at {
							vanish(f)
						}
					}
				})
				b.wait = 300 * time.Millisecond
				b.try()
				b.recovers()
			})
		}
	}
}
