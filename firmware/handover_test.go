// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/wire"
)

// spawn starts a worker as a card does: a process, shut in.
func (c *fakeCard) spawn() (*life, *os.Process) {
	c.t.Helper()
	engine := built.Path(c.t, "hwvtpm-engine")
	l, theirs := c.newLife()
	end := os.NewFile(uintptr(theirs), "supervisor channel")
	defer end.Close()
	cmd := exec.Command(engine, "--worker")
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{end}
	cmd.Stderr = c.t.Output()
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		l.err = cmd.Wait()
		close(l.exited)
	}()
	return l, cmd.Process
}

// relay is a card that keeps a client's slot served, whatever becomes of its
// workers.
type relay struct {
	c       *fakeCard
	k       *client
	begun   bool // a worker was told of the client before
	powered bool
	process atomic.Pointer[os.Process]
	life    *life
	ended   int
}

// next gives the slot to a new worker. MinSeq is what the last one has left.
func (r *relay) next() {
	s := r.c.setup()
	if r.begun {
		s.MinSeq = r.life.page.Seq()
		r.life.end()
	}
	if r.powered {
		resumed(&s)
	}
	l, p := r.c.spawn()
	l.give(s, r.c.durable(), r.k.far[0], r.k.far[1])
	r.life, r.begun = l, true
	r.process.Store(p)
}

// execute is a client that submits again when its worker died over it. The card
// cannot tell whether a command was read, so the client has to.
func (r *relay) execute(cmd []byte) ([]byte, error) {
	r.k.seq++
	sub := &abi.Submission{Op: abi.OpExecute, Seq: r.k.seq, Payload: cmd}
	r.k.send(sub)
	for {
		if !r.readable() {
			r.ended++
			if r.life.err == nil { // parked: the command is in the socket, or answered
				r.next()
				continue
			}
			r.next()
			r.k.send(sub)
			continue
		}
		done, ok := r.k.receive()
		if !ok || done.Seq > sub.Seq {
			r.c.t.Fatalf("completion %+v, %t for command %d", done, ok, sub.Seq)
		}
		if done.Seq == sub.Seq && done.Status == abi.StatusOK {
			return bytes.Clone(done.Payload), nil
		}
		if done.Seq == sub.Seq && done.Status != abi.StatusSequence {
			r.c.t.Fatalf("command %d: %v", sub.Seq, done.Status)
		}
	}
}

// readable waits for a completion. It is false if the worker ended before.
func (r *relay) readable() bool {
	fds := []unix.PollFd{{Fd: int32(r.k.data), Events: unix.POLLIN}}
	for {
		if n, _ := unix.Poll(fds, 5); n > 0 {
			return true
		}
		select {
		case <-r.life.exited:
			n, _ := unix.Poll(fds, 0)
			return n > 0
		default:
		}
	}
}

// TestHandOver parks and kills workers at random under a load in which every
// lost, doubled or undone command shows.
func TestHandOver(t *testing.T) {
	lives := 40
	if testing.Short() {
		lives = 8
	}
	c := newFakeCard(t)
	c.create()
	k := newClient(t)
	r := &relay{c: c, k: k}
	r.next()
	k.greet(1)
	r.powered = true
	tpm := tpmtest.New(t, r.execute)
	tpm.Startup()
	srk, session := tpm.CreateSRK(), tpm.HMACSession()
	tpm.DefineCounter(tpmtest.NVBase, false)
	tpm.Increment(tpmtest.NVBase)
	start := binary.BigEndian.Uint64(tpm.ReadNV(tpmtest.NVBase, 8))
	var pcr tpmtest.Digest
	seen := map[string]bool{}
	rounds := uint64(0)
	for last := -1; r.ended < lives; rounds++ {
		if last != r.ended { // and a whole round went well since
			last = r.ended
			l, p := r.life, r.process.Load()
			time.AfterFunc(rand.N(4*time.Millisecond), func() {
				if last%2 == 0 {
					p.Kill()
				} else {
					wire.Send(l.channel, wire.AppendPark(nil))
				}
			})
		}
		tpm.Increment(tpmtest.NVBase)
		tpm.Extend(10, "event")
		pcr = tpmtest.Extended(pcr, "event")
		if err := tpm.UseSession(session, srk); err != nil {
			t.Fatalf("round %d: session: %v", rounds, err)
		}
		random := string(tpm.Random(16))
		if seen[random] {
			t.Fatalf("round %d: random number %x came twice", rounds, random)
		}
		seen[random] = true
		if got := tpm.PCR(10); got != pcr {
			t.Fatalf("round %d: PCR 10 = %x, want %x", rounds, got, pcr)
		}
		if got := binary.BigEndian.Uint64(tpm.ReadNV(tpmtest.NVBase, 8)); got != start+rounds+1 {
			t.Fatalf("round %d: counter = %d, want %d", rounds, got, start+rounds+1)
		}
	}
	t.Logf("%d workers ended in %d rounds", r.ended, rounds)
}
