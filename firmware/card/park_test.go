// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/wire"
)

func TestIdleSlotsArePark(t *testing.T) {
	cfg := fakeConfig(t)
	cfg.ParkAfter = 30 * time.Millisecond
	r := openCard(t, cfg)
	r.create("a")
	c := r.open("a")
	for i := range 4 {
		r.await("a", abi.LifeParked)
		c.want(t, "add", fmt.Sprint(i+1))
	}
	r.await("a", abi.LifeParked) // the card counts a worker that may have answered before
	st := r.Stats()
	if st.Counters.Unparks != 4 || st.Counters.Parks < 4 || st.Counters.Restarts != 0 || st.Counters.Opens != 1 {
		t.Errorf("counters %+v", st.Counters)
	}
}

// What a worker is told after parking: the client's progress, and that it was
// greeted and powered on.
func TestResumeTellsTheWorker(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	c := r.open("a")
	c.want(t, "minseq", "0 0x0")
	c.want(t, "get", fmt.Sprintf("0 %x", r.show("a").ID))
	must(t, r.on(abi.OpSlotPark, "a", nil))
	c.want(t, "minseq", fmt.Sprintf("2 %#x", uint32(wire.Greeted|wire.Powered)))
	c.close()
	r.open("a").want(t, "minseq", "3 0x0")
}

// A slot that is not powered on holds no room either, and goes on as it was.
func TestNotPoweredOnIsParked(t *testing.T) {
	cfg := fakeConfig(t)
	cfg.MaxLive = 1
	r := openCard(t, cfg)
	r.create("a")
	r.create("b")
	a, err := r.tryOpen("a")
	must(t, err)
	defer a.close()
	b := r.open("b")
	b.want(t, "add", "1")
	r.await("a", abi.LifeParked)
	must(t, a.powerOn())
	r.await("b", abi.LifeParked)
	a.want(t, "minseq", fmt.Sprintf("0 %#x", uint32(wire.Greeted)))
	b.want(t, "add", "2")
	if st := r.Stats(); st.Counters.Restarts != 0 {
		t.Errorf("counters %+v", st.Counters)
	}
}

func TestParkedClientHangsUp(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	c := r.open("a")
	must(t, r.on(abi.OpSlotPark, "a", nil))
	c.close()
	r.await("a", abi.LifeClosed)
	wantStatus(t, r.on(abi.OpSlotPark, "a", nil), abi.StatusOrder)
	if n := r.Stats().Counters.Restarts; n != 0 {
		t.Errorf("%d restarts", n)
	}
}

// More clients than workers, all at once: everybody is served, nobody is mixed up.
func TestFewWorkersServeAll(t *testing.T) {
	const slots, rounds = 24, 10
	cfg := fakeConfig(t)
	cfg.MaxLive, cfg.Spares = 3, 1
	r := openCard(t, cfg)
	var wg sync.WaitGroup
	for i := range slots {
		name := fmt.Sprint("slot", i)
		r.create(name)
		c := r.open(name)
		id := r.show(name).ID
		wg.Go(func() {
			for n := range rounds {
				if out, err := c.run("add"); err != nil || out != fmt.Sprint(n+1) {
					t.Errorf("%s: add %d gives %q, %v", name, n+1, out, err)
					return
				}
				c.want(t, "get", fmt.Sprintf("%d %x", n+1, id))
			}
		})
	}
	wg.Wait()
	st := r.Stats()
	if st.Counters.Commands != 2*slots*rounds || st.Counters.Saves != slots*rounds || st.Counters.Restarts != 0 {
		t.Errorf("counters %+v", st.Counters)
	}
}

// A command that comes while its slot is being parked is not lost.
func TestCommandsRaceWithParking(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	c := r.open("a")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		s := r.NewSession(Principal{Admin: true})
		number := r.show("a").Number
		for {
			select {
			case <-stop:
				return
			default:
				do(s, abi.OpSlotPark, number, nil)
			}
		}
	})
	for i := range 100 {
		c.want(t, "add", fmt.Sprint(i+1))
	}
	close(stop)
	wg.Wait()
	if st := r.Stats(); st.Counters.Restarts != 0 || st.Counters.Parks == 0 {
		t.Errorf("counters %+v", st.Counters)
	}
}

// A parked slot costs descriptors and a little memory, and nothing that runs.
func TestParkedSlotsAreSmall(t *testing.T) {
	const slots = 50
	cfg := fakeConfig(t)
	cfg.MaxLive, cfg.Spares = 2, -1
	r := openCard(t, cfg)
	park := func(name string) {
		r.create(name)
		r.open(name)
		must(t, r.on(abi.OpSlotPark, name, nil))
	}
	park("first")
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for i := range slots {
		park(fmt.Sprint("s", i))
	}
	// The client's ends are in this process as well.
	if n := openFiles(t) - files; n > 4*slots {
		t.Errorf("%d descriptors for %d parked slots, want %d", n, slots, 4*slots)
	}
	if n := runtime.NumGoroutine() - goroutines; n > slots/2 {
		t.Errorf("%d goroutines for %d parked slots", n, slots)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// Closing the card ends its clients' slots; what they come back to is all there.
func TestCloseEndsAll(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	r.create("live")
	r.create("parked")
	live, parked := r.open("live"), r.open("parked")
	live.want(t, "add", "1")
	parked.want(t, "add", "1")
	must(t, r.on(abi.OpSlotPark, "parked", nil))
	must(t, r.Close())
	live.wantEnd(t)
	parked.wantEnd(t)
	if reply := r.admin.Do(t.Context(), &abi.Submission{Op: abi.OpSlotShow, Payload: []byte("live")}, nil); reply.Status == abi.StatusOK {
		t.Error("a closed card answers")
	}
	r = openCard(t, cfg)
	r.open("live").want(t, "add", "2")
	r.open("parked").want(t, "add", "2")
}

// A slot that fails while it is told to exit does not come back as if it had not.
func TestFailedWhileParking(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	c := r.open("a")
	answered := make(chan error, 1)
	go func() {
		_, err := c.run("fail-late")
		answered <- err
	}()
	for r.show("a").Commands < 100 {
		time.Sleep(time.Millisecond) // the command has not begun
	}
	r.on(abi.OpSlotPark, "a", nil)
	must(t, <-answered)
	for range 2 {
		if out, err := c.run("get"); err == nil || err.Error() != "slot has failed" {
			t.Errorf("a command after that gives %q, %v, want the failure", out, err)
		}
		must(t, r.on(abi.OpSlotPark, "a", nil))
	}
	must(t, c.powerOn())
	c.want(t, "get", fmt.Sprintf("0 %x", r.show("a").ID))
}

// The last number on record is remembered of a slot that failed, too: its volatile
// state is from then or later.
func TestFailedSlotIsRemembered(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	c := r.open("a")
	for _, cmd := range []string{"get", "get", "fail"} {
		_, err := c.run(cmd)
		must(t, err)
	}
	c.close()
	c, err := r.tryOpen("a")
	must(t, err)
	defer c.close()
	must(t, c.powerOn())
	c.want(t, "minseq", "3 0x0")
}
