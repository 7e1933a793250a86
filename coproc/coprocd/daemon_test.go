// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// daemon is the real coprocd, which may be killed and started again.
type daemon struct {
	t           testing.TB
	dir, socket string
	args        []string

	mu  sync.Mutex // guards what follows
	cmd *exec.Cmd
}

func startDaemon(t testing.TB, args ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{t: t, dir: filepath.Join(dir, "store"), socket: filepath.Join(dir, "s"), args: args}
	d.start()
	t.Cleanup(func() { d.end(unix.SIGTERM) })
	d.admin(func(ctx context.Context, c *admin.Client) error { _, err := c.Identify(ctx); return err })
	return d
}

func (d *daemon) start() {
	cmd := exec.Command(built.Path(d.t, "coprocd"), append([]string{
		"--store", d.dir, "--socket", d.socket, "--engine", built.Path(d.t, "hwvtpm-engine"),
	}, d.args...)...)
	cmd.Stderr = testWriter{d.t}
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // a test that is killed leaves nothing
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		d.t.Error(err)
		return
	}
	d.mu.Lock()
	d.cmd = cmd
	d.mu.Unlock()
}

// end signals the daemon and waits for its end.
func (d *daemon) end(sig os.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(sig)
	d.cmd.Wait()
	d.cmd = nil
}

// admin calls f with a client, and waits for the daemon before.
func (d *daemon) admin(f func(context.Context, *admin.Client) error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	for {
		conn, err := Dial(ctx, d.socket)
		if err != nil && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err == nil {
			err = f(ctx, admin.New(conn))
			conn.Close()
		}
		if err != nil {
			d.t.Fatal(err)
		}
		return
	}
}

// create makes a slot and gives its key.
func (d *daemon) create(name string) ed25519.PrivateKey {
	d.t.Helper()
	key, pub := newKey(d.t)
	d.admin(func(ctx context.Context, c *admin.Client) error {
		_, err := c.Create(ctx, abi.SlotCreate{Keys: abi.KeyP256EK, Banks: abi.DefaultBanks, Name: name, AccessKey: pub})
		return err
	})
	return key
}

// open gives a card that has the key of the slot.
func (d *daemon) open(key ed25519.PrivateKey) *Card {
	d.t.Helper()
	card, err := Open(configFor(d.t, d.socket, key))
	if err != nil {
		d.t.Fatalf("Open: %v", err)
	}
	d.t.Cleanup(func() { card.Close() })
	return card
}

// killWorker kills the worker of a slot, if it has one.
func (d *daemon) killWorker(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	conn, err := Dial(ctx, d.socket)
	if err != nil {
		return
	}
	defer conn.Close()
	if info, err := admin.New(conn).Show(ctx, name); err == nil && info.WorkerPID > 1 {
		unix.Kill(int(info.WorkerPID), unix.SIGKILL)
	}
}

func TestConformance(t *testing.T) {
	coproctest.Run(t, func(t *testing.T) coproc.Device {
		d := startDaemon(t)
		return d.open(d.create(coproctest.SlotName))
	})
}

// TestSlotsAreApart: the key of one slot does not open another.
func TestSlotsAreApart(t *testing.T) {
	d := startDaemon(t)
	a, b := d.create("vm-a"), d.create("vm-b")
	for slot, key := range map[string]ed25519.PrivateKey{"vm-a": b, "vm-b": a} {
		if s, err := d.open(key).OpenSlot(t.Context(), slot); err == nil {
			s.Close()
			t.Errorf("slot %s opened to the key of the other", slot)
		}
	}
	if _, err := d.open(a).OpenSlot(t.Context(), "vm-a"); err != nil {
		t.Errorf("slot vm-a does not open to its own key: %v", err)
	}
}

// guest is a TPM in use, with all that must outlive every kill.
type guest struct {
	t       *testing.T
	slot    coproc.Slot
	tpm     *tpmtest.TPM
	pcr     tpmtest.Digest
	counter uint64
}

func startGuest(t *testing.T, card *Card, slot string) *guest {
	t.Helper()
	s, err := card.OpenSlot(t.Context(), slot)
	if err != nil {
		t.Fatalf("OpenSlot: %v", err)
	}
	if _, err := s.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatalf("PowerOn: %v", err)
	}
	g := &guest{t: t, slot: s}
	g.tpm = tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		resp := make([]byte, coproc.MaxTransfer)
		n, err := s.Execute(context.Background(), coproc.Command{Bytes: cmd}, resp)
		return resp[:n], err
	})
	g.tpm.Startup()
	g.tpm.DefineCounter(tpmtest.NVBase, false)
	g.tpm.Increment(tpmtest.NVBase)
	g.counter = g.readCounter()
	return g
}

// restarts is how often the slot was opened again.
func (g *guest) restarts() uint64 {
	g.t.Helper()
	h, err := g.slot.Health(g.t.Context())
	if err != nil {
		g.t.Fatalf("Health: %v", err)
	}
	return h.Restarts
}

func (g *guest) readCounter() (n uint64) {
	for _, b := range g.tpm.ReadNV(tpmtest.NVBase, 8) {
		n = n<<8 | uint64(b)
	}
	return n
}

// round changes durable and volatile state, and checks that both are what all
// rounds have made of them.
func (g *guest) round(n int) {
	g.t.Helper()
	g.tpm.Increment(tpmtest.NVBase)
	g.counter++
	g.tpm.Extend(10, "event")
	g.pcr = tpmtest.Extended(g.pcr, "event")
	if got := g.readCounter(); got != g.counter {
		g.t.Fatalf("round %d: counter = %d, want %d", n, got, g.counter)
	}
	if got := g.tpm.PCR(10); got != g.pcr {
		g.t.Fatalf("round %d: PCR 10 = %x, want %x", n, got, g.pcr)
	}
}
