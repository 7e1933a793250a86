// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coprocd/coprocdtest"
)

// hang is how long a test waits for what takes milliseconds.
const hang = 30 * time.Second

var testCommand = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 32}

func newKey(t testing.TB) (ed25519.PrivateKey, [32]byte) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, [32]byte(pub)
}

// testWriter sends the log to the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if _, fuzz := w.t.(*testing.F); fuzz { // it panics if it is to log while its target runs
		return os.Stderr.Write(p)
	}
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

func configFor(t testing.TB, socket string, key ed25519.PrivateKey) Config {
	return Config{
		Socket: socket,
		Key:    func(string) (ed25519.PrivateKey, error) { return bytes.Clone(key), nil },
		Logger: hclog.New(&hclog.LoggerOptions{Output: testWriter{t}}),
	}
}

// rig is a daemon with one slot, and a card that reaches it.
type rig struct {
	*coprocdtest.Server
	slot *coprocdtest.Slot
	key  ed25519.PrivateKey
	cfg  Config
	card *Card
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{Server: coprocdtest.Start(t)}
	key, pub := newKey(t)
	r.key, r.slot = key, r.Card.Add("default", pub)
	r.cfg = configFor(t, r.Path(), key)
	if change != nil {
		change(&r.cfg)
	}
	card, err := Open(r.cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	r.card = card
	t.Cleanup(func() { card.Close() })
	return r
}

func (r *rig) start(t *testing.T) coproc.Slot {
	t.Helper()
	s, err := r.card.OpenSlot(t.Context(), "default")
	if err != nil {
		t.Fatalf("OpenSlot: %v", err)
	}
	if _, err := s.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatalf("PowerOn: %v", err)
	}
	return s
}

// execute runs a command and gives how many the fake TPM has executed.
func execute(t *testing.T, s coproc.Slot) uint32 {
	t.Helper()
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.Execute(t.Context(), coproc.Command{Bytes: testCommand}, resp)
	if err != nil || n != 14 {
		t.Fatalf("Execute = %x, %v", resp[:n], err)
	}
	return binary.BigEndian.Uint32(resp[10:])
}

func TestOpenExecuteClose(t *testing.T) {
	r := newRig(t, nil)
	info, err := r.card.Info(t.Context())
	if err != nil || info.Driver != "coprocd" || info.Slots != 64 || info.EngineVersion != 0x902 || info.ABIVersion != 1 {
		t.Errorf("Info = %+v, %v", info, err)
	}
	s := r.start(t)
	for want := range uint32(3) {
		if got := execute(t, s); got != want+1 {
			t.Errorf("command %d is number %d of the TPM", want+1, got)
		}
	}
	if _, err := r.card.OpenSlot(t.Context(), "default"); !errors.Is(err, coproc.ErrInUse) {
		t.Errorf("second OpenSlot: %v, want ErrInUse", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	r.start(t)
}

func TestOpenSlotErrors(t *testing.T) {
	r := newRig(t, nil)
	other, _ := newKey(t)
	_, pub := newKey(t)
	r.Card.Add("not-ours", pub)
	for _, tc := range []struct {
		name string
		key  func(string) (ed25519.PrivateKey, error)
		want error
	}{
		{"none", r.cfg.Key, coproc.ErrNotFound},
		{"bad name", r.cfg.Key, coproc.ErrNotFound},
		{"not-ours", r.cfg.Key, coproc.ErrDenied},
		{"default", func(string) (ed25519.PrivateKey, error) { return other, nil }, coproc.ErrDenied},
		{"default", func(string) (ed25519.PrivateKey, error) { return nil, io.ErrUnexpectedEOF }, io.ErrUnexpectedEOF},
	} {
		cfg := r.cfg
		cfg.Key = tc.key
		c, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.OpenSlot(t.Context(), tc.name); !errors.Is(err, tc.want) {
			t.Errorf("OpenSlot(%s): %v, want %v", tc.name, err, tc.want)
		}
		if e, ok := errors.AsType[*coproc.Error](func() error { _, err := c.OpenSlot(t.Context(), tc.name); return err }()); !ok || e.Op != "open" {
			t.Errorf("OpenSlot(%s) again: no *coproc.Error of open", tc.name)
		}
		c.Close()
	}
}

// TestWorkerAndDaemonDie: the guest notices nothing, and no command is executed
// twice.
func TestWorkerAndDaemonDie(t *testing.T) {
	r := newRig(t, nil)
	s := r.start(t)
	want := uint32(0)
	for i := range 20 {
		switch i % 4 {
		case 1:
			r.slot.Drop()
		case 3:
			r.Stop()
			time.AfterFunc(30*time.Millisecond, r.Listen)
		}
		want++
		if got := execute(t, s); got != want {
			t.Fatalf("command %d is number %d of the TPM", want, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestReplacedSlot: a slot that was destroyed and made again is another TPM.
func TestReplacedSlot(t *testing.T) {
	r := newRig(t, nil)
	s := r.start(t)
	execute(t, s)
	info := r.slot.Info()
	r.Card.Remove(info.Number)
	r.Card.Add("default", info.AccessKey)
	r.slot.Drop()
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.Execute(t.Context(), coproc.Command{Bytes: testCommand}, resp)
	if !errors.Is(err, coproc.ErrFailed) || !errors.Is(err, coproc.ErrForeign) || n != 10 {
		t.Errorf("Execute = %x, %v, want TPM_RC_FAILURE and ErrForeign", resp[:n], err)
	}
}

// TestDaemonStaysAway: the slot fails when the patience is over, and comes back
// with a reset once the daemon is there.
func TestDaemonStaysAway(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Patience = 50 * time.Millisecond })
	s := r.start(t)
	execute(t, s)
	r.Stop()
	resp := make([]byte, coproc.MaxTransfer)
	if _, err := s.Execute(t.Context(), coproc.Command{Bytes: testCommand}, resp); !errors.Is(err, coproc.ErrFailed) {
		t.Fatalf("Execute without a daemon: %v, want ErrFailed", err)
	}
	r.Listen()
	if err := s.Reset(t.Context()); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	if got := execute(t, s); got != 1 {
		t.Errorf("the first command after Reset is number %d", got)
	}
}

// TestCloseDoesNotWait: neither a slot nor a card that waits for its daemon
// keeps the program from ending.
func TestCloseDoesNotWait(t *testing.T) {
	for name, end := range map[string]func(*rig, coproc.Slot){
		"slot": func(_ *rig, s coproc.Slot) { s.Close() },
		"card": func(r *rig, _ coproc.Slot) { r.card.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Patience = time.Hour })
			s := r.start(t)
			r.Stop()
			done := make(chan error, 1)
			go func() {
				_, err := s.Execute(t.Context(), coproc.Command{Bytes: testCommand}, make([]byte, coproc.MaxTransfer))
				done <- err
			}()
			time.Sleep(20 * time.Millisecond)
			end(r, s)
			select {
			case err := <-done:
				if !errors.Is(err, coproc.ErrClosed) {
					t.Errorf("Execute: %v, want ErrClosed", err)
				}
			case <-time.After(hang):
				t.Fatal("Execute still waits")
			}
		})
	}
}

// TestSlotIsLetGoOf: a slot that another client has just lost is waited for.
func TestSlotIsLetGoOf(t *testing.T) {
	r := newRig(t, nil)
	other, err := Open(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.OpenSlot(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, r.slot.Drop)
	r.start(t)
}

func TestOpenWithoutDaemon(t *testing.T) {
	cfg := Config{Socket: t.TempDir() + "/none", Key: func(string) (ed25519.PrivateKey, error) { return nil, nil }, Patience: time.Millisecond}
	if c, err := Open(cfg); err == nil {
		c.Close()
		t.Error("Open without a daemon succeeded")
	}
	if _, err := Open(Config{Socket: "s"}); err == nil {
		t.Error("Open without a key succeeded")
	}
	if _, err := Open(Config{Key: cfg.Key}); err == nil {
		t.Error("Open without a socket succeeded")
	}
}
