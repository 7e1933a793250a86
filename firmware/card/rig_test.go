// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// patience bounds what has to come about on a busy machine.
const patience = 60 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeConfig is a card whose workers are this test program.
func fakeConfig(t testing.TB) Config {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	return Config{Dir: filepath.Join(t.TempDir(), "card"), Engine: self, ParkAfter: -1}
}

func openCard(t testing.TB, cfg Config) *rig {
	t.Helper()
	c, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return &rig{t: t, Card: c, admin: c.NewSession(Principal{Admin: true, Name: "test"})}
}

// rig is a card with an administrator.
type rig struct {
	t testing.TB
	*Card
	admin *Session
}

func do(s *Session, op abi.Opcode, number uint32, payload []byte) ([]byte, *Grant, error) {
	r := s.Do(context.Background(), &abi.Submission{Op: op, Slot: number, Payload: payload}, make([]byte, 0, abi.MaxPayload))
	if r.Status != abi.StatusOK {
		return nil, nil, &refusal{r.Status, fmt.Errorf("%s: %s", r.Status, r.Payload)}
	}
	return r.Payload, r.Grant, nil
}

func keyOf(name string) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	return ed25519.NewKeyFromSeed(seed)
}

func request(name string) *abi.SlotCreate {
	return &abi.SlotCreate{
		Keys: abi.KeyP256EK, Banks: abi.BankSHA256, Name: name,
		AccessKey: [32]byte(keyOf(name).Public().(ed25519.PublicKey)),
	}
}

func (r *rig) tryCreate(name string) (abi.SlotInfo, error) {
	b, _, err := do(r.admin, abi.OpSlotCreate, 0, abi.AppendSlotCreate(nil, request(name)))
	if err != nil {
		return abi.SlotInfo{}, err
	}
	return abi.ParseSlotInfo(b)
}

func (r *rig) create(name string) abi.SlotInfo {
	r.t.Helper()
	info, err := r.tryCreate(name)
	must(r.t, err)
	return info
}

func (r *rig) show(name string) abi.SlotInfo {
	r.t.Helper()
	b, _, err := do(r.admin, abi.OpSlotShow, 0, []byte(name))
	must(r.t, err)
	info, err := abi.ParseSlotInfo(b)
	must(r.t, err)
	return info
}

// await waits for a slot's life.
func (r *rig) await(name string, life abi.SlotLife) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if r.show(name).Life == life {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("slot %s is %s, want %s", name, r.show(name).Life, life)
		}
	}
}

// admins an opcode on a slot by name.
func (r *rig) on(op abi.Opcode, name string, payload []byte) error {
	r.t.Helper()
	_, _, err := do(r.admin, op, r.show(name).Number, payload)
	return err
}

func (r *rig) destroy(name string) ([]byte, error) {
	r.t.Helper()
	info := r.show(name)
	b, _, err := do(r.admin, abi.OpSlotDestroy, info.Number, abi.AppendSlotRef(nil, &abi.SlotRef{ID: info.ID, Nonce: [32]byte{1}}))
	return b, err
}

// prove answers a challenge for a slot with a key.
func prove(s *Session, name string, key ed25519.PrivateKey) (*Grant, error) {
	b, _, err := do(s, abi.OpSlotChallenge, 0, []byte(name))
	if err != nil {
		return nil, err
	}
	ch, err := abi.ParseChallenge(b)
	if err != nil {
		return nil, err
	}
	proof := abi.Proof(ed25519.Sign(key, abi.OpenMessage(ch.Serial, ch.ID, ch.Nonce)))
	_, grant, err := do(s, abi.OpSlotOpen, ch.Number, abi.AppendProof(nil, proof))
	return grant, err
}

func (r *rig) tryOpen(name string) (*client, error) {
	s := r.NewSession(Principal{Name: name})
	defer s.Close()
	g, err := prove(s, name, keyOf(name))
	if err != nil {
		return nil, err
	}
	return &client{grant: g}, nil
}

// open opens a slot and powers it on.
func (r *rig) open(name string) *client {
	r.t.Helper()
	c, err := r.tryOpen(name)
	must(r.t, err)
	r.t.Cleanup(c.close)
	must(r.t, c.powerOn())
	return c
}

// client has an open slot.
type client struct {
	grant *Grant
	seq   uint64
}

func (c *client) close() { c.grant.Close() }

// call sends a submission and waits for its completion. io.EOF: the card has ended
// the slot.
func (c *client) call(op abi.Opcode, payload []byte) (abi.Completion, error) {
	sub := abi.Submission{Op: op, Payload: payload}
	if op == abi.OpExecute {
		c.seq++
		sub.Seq = c.seq
	}
	if _, err := c.grant.Data.Write(abi.AppendSubmission(nil, &sub)); err != nil {
		return abi.Completion{}, gone(err)
	}
	return c.receive()
}

func (c *client) receive() (abi.Completion, error) {
	b := make([]byte, abi.MaxMessage)
	n, err := c.grant.Data.Read(b)
	if err != nil {
		return abi.Completion{}, gone(err)
	}
	return abi.ParseCompletion(b[:n])
}

func gone(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}

func (c *client) powerOn() error { return c.powerOnAs("run") }

// powerOnAs powers on for a run of this name.
func (c *client) powerOnAs(run string) error {
	hello := abi.AppendHello(nil, abi.Hello{Min: abi.MinVersion, Max: abi.Version})
	done, err := c.call(abi.OpIdentify, hello)
	if err == nil && done.Status == abi.StatusOK {
		done, err = c.call(abi.OpPowerOn, append([]byte(run), make([]byte, abi.RunIDSize-len(run))...))
	}
	if err == nil && done.Status != abi.StatusOK {
		err = fmt.Errorf("%s: %s", done.Status, done.Payload)
	}
	if reply, bad := abi.ParsePowerOnReply(done.Payload); bad == nil { // a fake has none
		c.seq = reply.LastSeq
	}
	return err
}

// run runs a command of the fake worker.
func (c *client) run(cmd string) (string, error) {
	done, err := c.call(abi.OpExecute, []byte(cmd))
	if err != nil {
		return "", err
	}
	out, ok := strings.CutPrefix(string(done.Payload), "ok")
	if !ok {
		return "", errors.New(string(done.Payload))
	}
	return strings.TrimSpace(out), nil
}

// want runs a command and compares the answer.
func (c *client) want(t testing.TB, cmd, want string) {
	t.Helper()
	if got, err := c.run(cmd); err != nil || got != want {
		t.Errorf("%q gives %q, %v, want %q", cmd, got, err, want)
	}
}

// wantEnd waits for the card to end the slot.
func (c *client) wantEnd(t testing.TB) {
	t.Helper()
	if _, err := c.receive(); err != io.EOF {
		t.Errorf("receive gives %v, want the end of the slot", err)
	}
}

func wantStatus(t testing.TB, err error, want abi.Status) {
	t.Helper()
	if got := statusOf(err); err == nil || got != want {
		t.Errorf("status %q (%v), want %q", got, err, want)
	}
}
