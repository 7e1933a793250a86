// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
)

// children counts the processes of this one, which are workers, dead ones but for
// those that nobody has waited for yet.
func children(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	must(t, err)
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // no process, or gone
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // state, parent
		f := strings.Fields(rest)
		if len(f) > 1 && f[0] != "Z" && f[1] == strconv.Itoa(os.Getpid()) {
			n++
		}
	}
	return n
}

// mostWorkers is the greatest number of workers until the end of f, told by the kernel.
func mostWorkers(t testing.TB, f func()) (most int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		select {
		case <-done:
			return most
		default:
			most = max(most, children(t))
		}
	}
}

// There are never more workers than there may be, whatever their slots do: work,
// wait for a power-on that does not come, or have failed.
func TestWorkersAreBounded(t *testing.T) {
	const slots, rounds = 18, 4
	cfg := fakeConfig(t)
	cfg.MaxLive, cfg.Spares = 3, -1
	r := openCard(t, cfg)
	clients := make([]*client, slots)
	for i := range clients {
		r.create(fmt.Sprint("slot", i))
	}
	most := mostWorkers(t, func() {
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				c, err := r.tryOpen(fmt.Sprint("slot", i))
				if err != nil {
					t.Errorf("slot %d: %v", i, err)
					return
				}
				clients[i] = c
				switch i % 3 {
				case 0:
					return // and nothing else comes of it
				case 1:
					_, err = c.run("fail")
				}
				for n := 0; n < rounds && err == nil && i%3 == 2; n++ {
					if n == 0 {
						err = c.powerOn()
					}
					if err == nil {
						_, err = c.run("add")
					}
				}
				if err != nil {
					t.Errorf("slot %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
	for _, c := range clients {
		if c != nil {
			c.close()
		}
	}
	if most > cfg.MaxLive {
		t.Errorf("%d workers at one time, want at most %d", most, cfg.MaxLive)
	}
}

// hog keeps its slot's worker busy without a pause, until the returned function is
// called: there is always another submission.
func (c *client) hog(t testing.TB) (stop func()) {
	c.grant.Data.SetWriteDeadline(time.Now().Add(patience))
	send := func() {
		c.seq++
		sub := abi.Submission{Op: abi.OpExecute, Seq: c.seq, Payload: []byte("sleep 200ms")}
		c.grant.Data.Write(abi.AppendSubmission(nil, &sub))
	}
	end, done := make(chan struct{}), make(chan struct{})
	send()
	send()
	go func() {
		defer close(done)
		for {
			send()
			if _, err := c.receive(); err != nil {
				t.Errorf("a busy slot was ended: %v", err)
				return
			}
			select {
			case <-end:
				return
			default:
			}
		}
	}()
	return sync.OnceFunc(func() { close(end); <-done })
}

// Slots that are never idle have to share with one that waits, and lose nothing.
func TestBusySlotsTakeTurns(t *testing.T) {
	cfg := fakeConfig(t)
	cfg.MaxLive, cfg.Spares = 2, -1
	r := openCard(t, cfg)
	for i := range 3 {
		r.create(fmt.Sprint("slot", i))
	}
	for i := range 2 {
		defer r.open(fmt.Sprint("slot", i)).hog(t)()
	}
	c := r.open("slot2")
	for n := range 3 {
		c.want(t, "add", fmt.Sprint(n+1))
		must(t, r.on(abi.OpSlotPark, "slot2", nil))
	}
	if st := r.Stats(); st.Counters.Restarts != 0 {
		t.Errorf("counters %+v", st.Counters)
	}
}

// Who waits for too long is told so, and comes again.
func TestWaitForRoomEnds(t *testing.T) {
	cfg := fakeConfig(t)
	cfg.MaxLive, cfg.Spares = 1, -1
	r := openCard(t, cfg)
	r.waits = waits{open: 50 * time.Millisecond, wake: 50 * time.Millisecond, work: 50 * time.Millisecond}
	r.create("busy")
	r.create("waits")
	c := r.open("waits")
	must(t, r.on(abi.OpSlotPark, "waits", nil))
	hog := r.open("busy")
	answered := make(chan error, 1)
	go func() {
		_, err := hog.run("sleep 3s")
		answered <- err
	}()
	for !r.working("busy") {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.call(abi.OpExecute, []byte("add")); err == nil {
		t.Error("a command that waited for too long was executed")
	}
	_, err := r.tryOpen("waits")
	wantStatus(t, err, abi.StatusFull)
	if err != nil && !strings.Contains(err.Error(), "all 1 workers are busy") {
		t.Errorf("no word of why: %v", err)
	}
	_, err = r.tryCreate("more")
	wantStatus(t, err, abi.StatusFull)
	must(t, <-answered)
	r.open("waits").want(t, "add", "1")
}

// working tells whether a slot's worker serves a submission.
func (r *rig) working(name string) bool {
	s, err := r.named(name)
	must(r.t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run != nil && s.run.page.Busy()
}
