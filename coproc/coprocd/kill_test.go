// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest"
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
			// A command that kills twice is refused. The one that met a dying worker
			// is in a round of its own.
			g.round(rounds)
			rounds++
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
	var unparks uint64
	for n := range 500 {
		g.round(n)
		time.Sleep(20 * time.Millisecond)
		d.admin(func(ctx context.Context, c *admin.Client) error {
			now, err := c.Counters(ctx)
			unparks = now.Unparks
			return err
		})
		if n >= 4 && unparks > 0 {
			return
		}
	}
	t.Error("the slot was never parked")
}

// TestHungWorker: a worker that neither answers nor obeys a cancel is given up,
// and the command counts as canceled.
func TestHungWorker(t *testing.T) {
	d := startDaemon(t)
	key := d.create("vm")
	cfg := configFor(t, d.socket, key)
	cfg.CancelGrace = 100 * time.Millisecond
	card, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	g := startGuest(t, card, "vm")
	g.round(0)
	h, err := g.slot.Health(t.Context())
	if err != nil || h.WorkerPID < 2 {
		t.Fatalf("Health = %+v, %v", h, err)
	}
	if err := unix.Kill(h.WorkerPID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	coproctest.AwaitStopped(t, h.WorkerPID)
	resp := make([]byte, coproc.MaxTransfer)
	n, err := g.slot.Execute(t.Context(), coproc.Command{Bytes: testCommand, Timeout: 100 * time.Millisecond}, resp)
	if want := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x09}; err != nil || !bytes.Equal(resp[:n], want) {
		t.Errorf("command to a hung worker: %x, %v, want TPM_RC_CANCELED", resp[:n], err)
	}
	g.round(1)
}
