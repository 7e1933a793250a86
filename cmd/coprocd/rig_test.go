// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	driver "hwvtpm/coproc/coprocd"
	"hwvtpm/coproc/coproctest/programs"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// hang guards every wait.
const hang = time.Minute

// built is the daemon and its engine.
var built = programs.New("coprocd", "hwvtpm-engine")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// daemon is a coprocd that a test starts and ends as it likes.
type daemon struct {
	t      testing.TB
	dir    string
	store  string
	socket string
	args   []string
	env    []string
	creds  *unix.Ucred // of another user to run as; nil: the test's
	cmd    *exec.Cmd
	notify *net.UnixConn
	log    *logBuffer
	keys   map[string]ed25519.PrivateKey
}

// logBuffer keeps a log for tests to look into.
type logBuffer struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newDaemon prepares a daemon, which start starts.
func newDaemon(t testing.TB, args ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "coprocd") // short, for names of sockets
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{
		t: t, dir: dir, store: filepath.Join(dir, "store"), socket: filepath.Join(dir, "s"), args: args,
		log: &logBuffer{}, keys: map[string]ed25519.PrivateKey{},
	}
	d.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd != nil {
			d.end(unix.SIGKILL)
		}
		d.notify.Close()
		os.RemoveAll(dir)
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", d.log)
		}
	})
	return d
}

// launch starts the program and does not wait.
func (d *daemon) launch() {
	d.t.Helper()
	args := append([]string{"--store", d.store, "--socket", d.socket, "--log-level", "debug"}, d.args...)
	d.cmd = exec.Command(built.Path(d.t, "coprocd"), args...)
	d.cmd.Env = append(d.env, "NOTIFY_SOCKET="+filepath.Join(d.dir, "notify"))
	d.cmd.Stderr = d.log
	if d.creds != nil {
		d.cmd.SysProcAttr = runAs(d.creds)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
}

// start starts the program and waits until it says that it is ready.
func (d *daemon) start() *daemon {
	d.t.Helper()
	d.launch()
	d.await("READY=1")
	return d
}

// await waits for a message to the service manager.
func (d *daemon) await(what string) {
	d.t.Helper()
	d.notify.SetReadDeadline(time.Now().Add(hang))
	b := make([]byte, 256)
	for {
		n, err := d.notify.Read(b)
		if err != nil {
			d.t.Fatalf("no %s: %v", what, err)
		}
		if strings.HasPrefix(string(b[:n]), what) {
			return
		}
	}
}

// wait waits for the program's end and gives its exit code.
func (d *daemon) wait() int {
	d.t.Helper()
	timer := time.AfterFunc(hang, func() {
		d.t.Error("the daemon does not end")
		d.cmd.Process.Kill()
	})
	defer timer.Stop()
	d.cmd.Wait()
	code := d.cmd.ProcessState.ExitCode()
	d.cmd = nil
	return code
}

func (d *daemon) end(sig unix.Signal) int {
	d.t.Helper()
	d.cmd.Process.Signal(sig)
	return d.wait()
}

// tells waits until the daemon's log, which comes by a pipe, has this text.
func (d *daemon) tells(text string) bool {
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(d.log.String(), text) {
			return true
		}
	}
	return false
}

// refuses starts the program and checks that it ends at once, with a code and an
// explanation.
func (d *daemon) refuses(code int, why string) {
	d.t.Helper()
	d.launch()
	got := d.wait()
	_, last, _ := strings.Cut(strings.TrimSpace(d.log.String()), "\ncoprocd: ")
	if i := strings.LastIndex(last, "\ncoprocd: "); i >= 0 {
		last = last[i:]
	}
	if got != code || !strings.Contains(last, why) {
		d.t.Fatalf("exit code %d and %q, want %d and %q", got, last, code, why)
	}
}

// key gives a copy of the access key of a slot, which is made when it is asked for
// first. The driver wipes what it was given.
func (d *daemon) key(name string) (ed25519.PrivateKey, error) {
	if d.keys[name] == nil {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		d.keys[name] = key
	}
	return bytes.Clone(d.keys[name]), nil
}

// admin gives a client for admin commands.
func (d *daemon) admin() *admin.Client {
	d.t.Helper()
	c, err := driver.Dial(d.t.Context(), d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return admin.New(c)
}

// create makes slots, with a key that is made fast.
func (d *daemon) create(names ...string) {
	d.t.Helper()
	for _, name := range names {
		key, err := d.key(name)
		if err != nil {
			d.t.Fatal(err)
		}
		if _, err := d.admin().Create(d.t.Context(), abi.SlotCreate{
			Keys: abi.KeyP256EK, Banks: abi.DefaultBanks, Name: name, AccessKey: [32]byte(key.Public().(ed25519.PublicKey)),
		}); err != nil {
			d.t.Fatalf("create slot %s: %v", name, err)
		}
	}
}

// device opens the driver.
func (d *daemon) device() *driver.Card {
	d.t.Helper()
	c, err := driver.Open(driver.Config{Socket: d.socket, Key: d.key})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// client is an open slot with a TPM that runs.
type client struct {
	*tpmtest.TPM
	slot coproc.Slot
}

// open opens a slot and powers its TPM on.
func (d *daemon) open(dev coproc.Device, name string) client {
	d.t.Helper()
	return d.openAs(dev, name, coproc.RunID{1})
}

func (d *daemon) openAs(dev coproc.Device, name string, run coproc.RunID) client {
	d.t.Helper()
	s, err := dev.OpenSlot(d.t.Context(), name)
	if err != nil {
		d.t.Fatalf("open slot %s: %v", name, err)
	}
	if _, err := s.PowerOn(d.t.Context(), run); err != nil {
		d.t.Fatalf("power on slot %s: %v", name, err)
	}
	tpm := tpmtest.New(d.t, func(cmd []byte) ([]byte, error) {
		resp := make([]byte, coproc.MaxTransfer)
		n, err := s.Execute(context.Background(), coproc.Command{Bytes: cmd}, resp)
		return resp[:n], err
	})
	return client{tpm, s}
}
