// SPDX-License-Identifier: Apache-2.0

package gates

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/door/vsock"
)

// hang guards every wait.
const hang = time.Minute

// echo answers with who the caller is.
type echo struct{}

func (echo) Do(_ context.Context, caller door.Caller, _ string, _ json.RawMessage) (any, error) {
	return caller, nil
}

func config(path string) Config {
	return Config{Path: path, Mode: 0o600, GID: -1, VM: "vm-a", Handler: echo{}, Most: 2, Logger: hclog.NewNullLogger()}
}

func open(t *testing.T, cfg Config) {
	t.Helper()
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
}

// ask connects and asks who it is. Without an answer the error is door.ErrClosed.
func ask(t *testing.T, path string) (*door.Client, door.Caller, error) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, door.Caller{}, err
	}
	c := door.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	var who door.Caller
	return c, who, c.Call(ctx, "who", nil, &who)
}

// TestGate: the caller is the socket's machine, and the user who connected.
func TestGate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	open(t, config(path))
	_, who, err := ask(t, path)
	if want := (door.Caller{VM: "vm-a", UID: os.Getuid()}); err != nil || who != want {
		t.Errorf("caller %+v, %v, want %+v", who, err, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
}

// TestAdmit: who is not admitted gets no answer.
func TestAdmit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := config(path)
	cfg.Admit = func(peer *unix.Ucred) error {
		if int(peer.Uid) != os.Getuid() {
			t.Errorf("peer %+v", peer)
		}
		return errors.New("nobody")
	}
	open(t, cfg)
	if _, _, err := ask(t, path); !errors.Is(err, door.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// TestMost: connections above the bound are closed, and there is room again when one
// has ended.
func TestMost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	open(t, config(path))
	first, _, err := ask(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, path); !errors.Is(err, door.ErrClosed) {
		t.Errorf("the third of two connections: %v, want ErrClosed", err)
	}
	first.Close()
	for deadline := time.Now().Add(hang); ; {
		if _, _, err := ask(t, path); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("no room after a connection has ended: %v", err)
		}
	}
}

// TestEach: one process does not have all connections.
func TestEach(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "s"))
	cfg.Most, cfg.Each = 99, 2
	open(t, cfg)
	for i := range 3 {
		if _, _, err := ask(t, cfg.Path); (err == nil) != (i < 2) {
			t.Errorf("connection %d of a process: %v", i, err)
		}
	}
}

// TestGarbage: what is no message is no harm to the next.
func TestGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := config(path)
	cfg.Slow = true
	open(t, cfg)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(hang))
	for _, b := range [][]byte{{0, 1, 2, '\n'}, []byte(`{"id":1}` + "\n"), bytes.Repeat([]byte("["), 1<<16), bytes.Repeat([]byte{'x'}, door.MaxRequest+1)} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	c := door.NewClient(conn)
	defer c.Close()
	if err := c.Call(t.Context(), "who", nil, nil); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}

// TestThrottle: a guest that sends without end is read at its rate.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guest, host := net.Pipe()
		slow := &throttle{ReadWriteCloser: host, ctx: t.Context(), sent: &meter{}}
		go func() {
			for b := make([]byte, 64<<10); ; {
				if _, err := guest.Write(b); err != nil {
					return
				}
			}
		}()
		begun, total := time.Now(), 0
		for b := make([]byte, 64<<10); total < slowBurst+10*slowRate; {
			slow = &throttle{ReadWriteCloser: host, ctx: t.Context(), sent: slow.sent} // as by a new connection
			n, err := slow.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			total += n
		}
		if took := time.Since(begun); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("%d bytes took %v", total, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		slow.ctx = ctx
		cancel()
		if _, err := io.ReadFull(slow, make([]byte, slowBurst)); !errors.Is(err, context.Canceled) {
			t.Errorf("Read after the end: %v", err)
		}
		guest.Close()
	})
}

// TestThrottleCountsAll: a guest that makes a new connection for each message is counted
// on.
func TestThrottleCountsAll(t *testing.T) {
	const each, times = 512 << 10, 4
	cfg := config(filepath.Join(t.TempDir(), "s"))
	cfg.Slow, cfg.Most = true, times // one that was closed may still have its place
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	begun := time.Now()
	for range times {
		conn, err := net.Dial("unix", cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(hang))
		if _, err := conn.Write(bytes.Repeat([]byte{'x'}, each)); err != nil {
			t.Fatal(err)
		}
		c := door.NewClient(conn)
		if err := c.Call(t.Context(), "who", nil, nil); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	if least := each*times - slowRate*g.sent.at.Sub(begun).Seconds(); g.sent.used < least {
		t.Errorf("%.0f bytes are counted, want %.0f at least", g.sent.used, least)
	}
}

// TestGuests: each machine has its socket as long as it is there.
func TestGuests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "guests")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "old.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	if err := os.WriteFile(filepath.Join(dir, "vm-file.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg := config("")
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
	g, err := NewGuests(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 63)
	deep := len(dir)+1+len(long)+len(suffix) >= 108
	g.Set([]string{"vm-a", "vm-b", "vm-file"})
	_, who, err := ask(t, filepath.Join(dir, "vm-b.sock"))
	if err != nil || who.VM != "vm-b" {
		t.Errorf("caller %+v, %v", who, err)
	}
	a, _, err := ask(t, filepath.Join(dir, "vm-a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	g.Set([]string{"vm-b", "vm-file", long})
	if err := a.Call(t.Context(), "who", nil, nil); !errors.Is(err, door.ErrClosed) {
		t.Errorf("the channel of a machine that is gone: %v, want ErrClosed", err)
	}
	if got := strings.Count(log.String(), "a machine has no door: vm=vm-file"); got != 1 {
		t.Errorf("%d lines about a door that can't be made:\n%s", got, &log)
	}
	if _, _, err := ask(t, filepath.Join(dir, long+suffix)); deep != (err != nil) {
		t.Errorf("a long name: %v", err)
	}
	g.Close()
	g.Set([]string{"vm-c"})
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "vm-file.sock" {
		t.Errorf("left: %q, %v", left, err)
	}
}

// vsockListener gives connections as from these CIDs.
type vsockListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *vsockListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *vsockListener) Close() error   { close(l.closed); return nil }
func (l *vsockListener) Addr() net.Addr { return vsock.Addr{} }

type vsockConn struct {
	net.Conn
	cid uint32
}

func (c vsockConn) RemoteAddr() net.Addr { return vsock.Addr{CID: c.cid, Port: 1} }

// TestVsock: the machine is the one that the file has for the CID, as it is now.
func TestVsock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "guests")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("3 vm-a # the first\n\n4 vm-b\n")
	l := &vsockListener{make(chan net.Conn), make(chan struct{})}
	v := serveVsock(l, file, config(""))
	defer v.Close()
	connect := func(cid uint32) (string, error) {
		guest, host := net.Pipe()
		l.conns <- vsockConn{host, cid}
		c := door.NewClient(guest)
		t.Cleanup(func() { c.Close() })
		var who door.Caller
		err := c.Call(t.Context(), "who", nil, &who)
		return who.VM, err
	}
	for _, tc := range []struct {
		cid  uint32
		want string
	}{{3, "vm-a"}, {4, "vm-b"}, {5, ""}, {3, "vm-a"}, {3, ""}} { // the last is one too many
		if vm, err := connect(tc.cid); vm != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("CID %d: %q, %v, want %q", tc.cid, vm, err, tc.want)
		}
	}
	for range 2 * connectBurst {
		if vm, err := connect(5); err == nil {
			t.Errorf("a CID that nobody has: %q", vm)
		}
	}
	if v.rate.Refused() == 0 {
		t.Error("the file was read for each connection of a CID that connects without end")
	}
	write("4 vm-c\n")
	if vm, err := connect(4); vm != "vm-c" || err != nil {
		t.Errorf("after a change: %q, %v", vm, err)
	}
}

func TestReadGuests(t *testing.T) {
	file := filepath.Join(t.TempDir(), "guests")
	for text, ok := range map[string]bool{
		"":                         true,
		"# none\n":                 true,
		"3 a\n4 b":                 true,
		"3 a\n3 b\n":               false,
		"3 a\n4 a\n":               false,
		"2 a\n":                    false, // the host
		"4294967295 a\n":           false, // anybody
		"4294967296 a\n":           false,
		"x a\n":                    false,
		"3 a b\n":                  false,
		"3\n":                      false,
		"3 ../a\n":                 false,
		strings.Repeat("x", 1<<17): false,
		strings.Repeat("# many\n", maxGuests/7) + "3 vm-a23\n": false, // which would be cut
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readGuests(file); (err == nil) != ok {
			t.Errorf("%.40q: %v, %v, want it taken %v", text, got, err, ok)
		}
	}
	if _, err := OpenVsock(1024, filepath.Join(t.TempDir(), "no-such"), config("")); err == nil {
		t.Error("a listener without a file")
	}
}
