// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/admin"
)

// TestKillWorkers: workers die at random while guests use their TPMs. No write
// that was answered is lost, none is done twice, and no PCR moves back.
func TestKillWorkers(t *testing.T) {
	killAtRandom(t, 20, 5, func(d *daemon) { d.killWorker("vm") })
}

// TestKillDaemon: so with the daemon, which takes all workers with it.
func TestKillDaemon(t *testing.T) {
	killAtRandom(t, 12, 3, func(d *daemon) {
		d.end(unix.SIGKILL)
		d.start()
	})
}

// killAtRandom runs a guest until its slot was opened again so many times, after
// kills each at a random moment after a whole round that went well.
func killAtRandom(t *testing.T, restarts, short uint64, kill func(*daemon)) {
	if testing.Short() {
		restarts = short
	}
	d := startDaemon(t)
	g := startGuest(t, d.open(d.create("vm")), "vm")
	ready := make(chan struct{}, 1)
	ready <- struct{}{}
	kills, rounds := 0, 0
	for g.restarts() < restarts {
		select {
		case <-ready:
			kills++
			time.AfterFunc(rand.N(10*time.Millisecond), func() {
				kill(d)
				ready <- struct{}{}
			})
		default:
		}
		g.round(rounds)
		rounds++
	}
	<-ready
	g.round(rounds)
	t.Logf("%d kills, %d restarts in %d rounds", kills, g.restarts(), rounds)
}

// TestParkedSlotComesBack: a slot that is put to rest after each command goes on
// as if it had not been.
func TestParkedSlotComesBack(t *testing.T) {
	d := startDaemon(t, "--park-after", "1ms")
	g := startGuest(t, d.open(d.create("vm")), "vm")
	for n := range 5 {
		g.round(n)
		time.Sleep(20 * time.Millisecond)
	}
	d.admin(func(ctx context.Context, c *admin.Client) error {
		n, err := c.Counters(ctx)
		if err == nil && n.Unparks == 0 {
			t.Errorf("the slot was never parked: %+v", n)
		}
		return err
	})
}
