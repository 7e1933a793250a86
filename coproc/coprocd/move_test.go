// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// traveller is a guest that moves.
type traveller struct {
	*testing.T
	card *Card
	slot coproc.Slot
	tpm  *tpmtest.TPM
}

func newTraveller(t *testing.T, card *Card) *traveller {
	g := &traveller{T: t, card: card}
	g.tpm = tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		resp := make([]byte, coproc.MaxTransfer)
		n, err := g.slot.Execute(t.Context(), coproc.Command{Bytes: cmd}, resp)
		return resp[:n], err
	})
	g.open()
	if _, err := g.slot.PowerOn(t.Context(), coproc.RunID{0xff}); err != nil {
		t.Fatal(err)
	}
	g.tpm.Startup()
	return g
}

// open opens the slot, which the daemon may just have been killed over.
func (g *traveller) open() {
	g.Helper()
	for end := time.Now().Add(hang); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if g.slot, err = g.card.OpenSlot(g.Context(), "vm"); err == nil {
			return
		}
		if time.Now().After(end) {
			g.Fatalf("OpenSlot: %v", err)
		}
	}
}

func (g *traveller) save() coproc.SavedState {
	g.Helper()
	st, err := g.slot.(coproc.StateMover).SaveState(g.Context())
	if err != nil {
		g.Fatalf("SaveState: %v", err)
	}
	return st
}

func (g *traveller) load(run byte, st coproc.SavedState) error {
	_, err := g.slot.(coproc.StateMover).LoadState(g.Context(), coproc.RunID{run}, st)
	return err
}

// TestKillWhileMoving: workers and the daemon die at random while a machine moves
// again and again. It arrives each time as it left.
func TestKillWhileMoving(t *testing.T) {
	moves := 40
	if testing.Short() {
		moves = 8
	}
	d := startDaemon(t)
	g := newTraveller(t, d.open(d.create("vm")))
	want := g.tpm.PCR(16)
	for i := range moves {
		g.tpm.Extend(16, "on the way")
		want = tpmtest.Extended(want, "on the way")
		done := make(chan struct{})
		time.AfterFunc(rand.N(40*time.Millisecond), func() {
			defer close(done)
			if i%4 != 3 {
				d.killWorker("vm")
				return
			}
			d.end(unix.SIGKILL)
			d.start()
		})
		st := g.save()
		g.slot.Close()
		g.open()
		for end := time.Now().Add(hang); ; {
			err := g.load(byte(i), st)
			if err == nil {
				break
			}
			if time.Now().After(end) || errors.Is(err, coproc.ErrRollback) {
				t.Fatalf("move %d: %v", i, err)
			}
			g.slot.Close() // the driver's patience was over: a machine tries again
			g.open()
		}
		if got := g.tpm.PCR(16); got != want {
			t.Fatalf("after move %d: PCR 16 = %x, want %x", i, got, want)
		}
		<-done
	}
}

// TestPermitRestore: a slot goes back once, when an administrator says so.
func TestPermitRestore(t *testing.T) {
	d := startDaemon(t)
	g := newTraveller(t, d.open(d.create("vm")))
	g.tpm.DefineNV(tpmtest.NVBase, 3)
	g.tpm.WriteNV(tpmtest.NVBase, []byte("old"))
	st := g.save()
	g.tpm.WriteNV(tpmtest.NVBase, []byte("new"))
	var info abi.SlotInfo
	permit := func(ctx context.Context, c *admin.Client) (err error) {
		if info, err = c.Show(ctx, "vm"); err == nil {
			err = c.PermitRestore(ctx, info, "test")
		}
		return err
	}
	d.admin(func(ctx context.Context, c *admin.Client) error {
		if err := permit(ctx, c); !errors.Is(err, coproc.ErrInUse) {
			t.Errorf("PermitRestore of an open slot: %v, want ErrInUse", err)
		}
		return nil
	})
	if err := g.load(1, st); !errors.Is(err, coproc.ErrRollback) {
		t.Fatalf("LoadState without permission: %v, want ErrRollback", err)
	}
	g.slot.Close()
	d.admin(permit)
	g.open()
	if err := g.load(1, st); err != nil {
		t.Fatalf("LoadState with permission: %v", err)
	}
	if got := string(g.tpm.ReadNV(tpmtest.NVBase, 3)); got != "old" {
		t.Errorf("NV = %q, want what it was", got)
	}
	before := info.Generation
	d.admin(func(ctx context.Context, c *admin.Client) (err error) {
		info, err = c.Show(ctx, "vm")
		return err
	})
	if info.Generation <= before {
		t.Errorf("generation went from %d to %d", before, info.Generation)
	}
	g.tpm.WriteNV(tpmtest.NVBase, []byte("new"))
	for range 2 {
		if err := g.load(2, st); !errors.Is(err, coproc.ErrRollback) {
			t.Errorf("LoadState by a permission that was used: %v, want ErrRollback", err)
		}
		g.slot.Close()
		g.open()
	}
}
