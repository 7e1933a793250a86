// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
)

// cardHost is a running coprocd with slots of one access key, which spares the
// benchmark a list of them.
type cardHost struct {
	ctx   context.Context
	proc  *process
	conn  *coprocd.Conn
	admin *admin.Client
	card  *coprocd.Card
	key   ed25519.PrivateKey
}

// startCard starts coprocd on the store in dir. flags are its own.
func startCard(ctx context.Context, p programs, dir string, flags ...string) (*cardHost, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	socket := filepath.Join(dir, "card.sock")
	args := append([]string{"--store", filepath.Join(dir, "store"), "--socket", socket, "--engine", p.engine}, flags...)
	proc, err := start(dir, p.card, args...)
	if err != nil {
		return nil, err
	}
	h := &cardHost{ctx: context.WithoutCancel(ctx), proc: proc}
	if err := h.connect(ctx, socket); err != nil {
		h.close()
		return nil, proc.failure(err)
	}
	return h, nil
}

func (h *cardHost) connect(ctx context.Context, socket string) (err error) {
	if _, h.key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return err
	}
	for begin := time.Now(); ; {
		if h.conn, err = coprocd.Dial(ctx, socket); err == nil {
			break
		}
		select {
		case <-h.proc.done:
			return err
		case <-time.After(time.Millisecond):
		}
		if time.Since(begin) > hang {
			return err
		}
	}
	h.admin = admin.New(h.conn)
	if _, err = h.admin.Identify(ctx); err != nil { // who says nothing for a while is hung up on
		return err
	}
	h.card, err = coprocd.Open(coprocd.Config{
		Socket: socket,
		Key: func(slot string) (ed25519.PrivateKey, error) {
			return h.keyOf(slot), nil
		},
	})
	return err
}

func (h *cardHost) close() {
	if h.card != nil {
		_ = h.card.Close()
	}
	if h.conn != nil {
		_ = h.conn.Close()
	}
	h.proc.stop()
}

// keyOf is the access key of a slot: each has one of its own.
func (h *cardHost) keyOf(slot string) ed25519.PrivateKey {
	seed := sha256.Sum256(append(h.key.Seed(), slot...))
	return ed25519.NewKeyFromSeed(seed[:])
}

// create makes a slot with a TPM that has these keys.
func (h *cardHost) create(name string, keys abi.Keys) error {
	_, err := h.admin.Create(h.ctx, abi.SlotCreate{
		Keys: keys, Banks: abi.DefaultBanks, Name: name, AccessKey: [32]byte(h.keyOf(name).Public().(ed25519.PublicKey)),
	})
	return err
}

// open opens a slot and powers it on.
func (h *cardHost) open(name string) (*cardTarget, error) {
	s, err := h.card.OpenSlot(h.ctx, name)
	if err != nil {
		return nil, err
	}
	if _, err := s.PowerOn(h.ctx, coproc.RunID{1}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &cardTarget{host: h, name: name, slot: s}, nil
}

// cardTarget is one slot of a card behind coprocd, as its driver reaches it. It
// may own the card.
type cardTarget struct {
	host *cardHost
	name string
	slot coproc.Slot
	owns bool
	resp [coproc.MaxTransfer]byte
}

// openCard starts a card with one slot.
func openCard(ctx context.Context, p programs, dir string) (target, error) {
	h, err := startCard(ctx, p, dir, "--park-after", "1h")
	if err != nil {
		return nil, err
	}
	const name = "bench"
	err = h.create(name, 0)
	if err == nil {
		var t *cardTarget
		if t, err = h.open(name); err == nil {
			t.owns = true
			return t, nil
		}
	}
	h.close()
	return nil, err
}

func (t *cardTarget) frame(command []byte) []byte { return command }

func (t *cardTarget) exchange(command []byte) ([]byte, error) {
	// A background context, as the device gives it: no cancellation to set up.
	n, err := t.slot.Execute(context.Background(), coproc.Command{Bytes: command}, t.resp[:])
	return t.resp[:n], err
}

func (t *cardTarget) Send(command []byte) ([]byte, error) { return t.exchange(command) }

// pids are the slot's worker and the card: in this order, so that the first is
// what does the work.
func (t *cardTarget) pids() []int {
	info, err := t.host.admin.Show(t.host.ctx, t.name)
	if err != nil {
		return nil
	}
	return []int{int(info.WorkerPID), t.host.proc.cmd.Process.Pid}
}

func (t *cardTarget) close() {
	_ = t.slot.Close()
	if t.owns {
		t.host.close()
	}
}
