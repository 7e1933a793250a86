// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi/enginelog"
	"hwvtpm/firmware/wire"
)

const patience = 60 * time.Second

// TestMain is also the worker's main: it answers each message with itself, and
// exits at the end, or when it is told to.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--worker" {
		echo()
	}
	os.Exit(m.Run())
}

func echo() {
	b := make([]byte, wire.MaxMessage)
	for {
		n, fds, err := wire.Receive(wire.SupervisorFD, b)
		switch {
		case err != nil, string(b[:n]) == "exit":
			unix.Exit(0) // not os.Exit: the race detector makes that take a second
		case string(b[:n]) == "fail":
			unix.Exit(7)
		case string(b[:n]) == "log":
			os.Stderr.WriteString(strings.Repeat("warn a line\n", 2*enginelog.MaxLines) + strings.Repeat("x", 3*enginelog.MaxLine) + "\n")
		case string(b[:n]) == "arguments":
			wire.Send(wire.SupervisorFD, []byte(strings.Join(os.Args[1:], " ")))
			continue
		case string(b[:n]) == "descriptor":
			wire.Send(wire.SupervisorFD, b[:n], 0)
			continue
		}
		wire.CloseAll(fds)
		wire.Send(wire.SupervisorFD, b[:n])
	}
}

func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	if cfg.Engine == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Engine = self
	}
	if cfg.UIDs == 0 {
		cfg.UID = -1
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	p := NewPool(cfg)
	t.Cleanup(p.Close)
	return p
}

func get(t *testing.T, p *Pool) *Process {
	t.Helper()
	w, err := p.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	return w
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

func ask(t *testing.T, w *Process, msg string) {
	t.Helper()
	b := make([]byte, wire.MaxMessage)
	if err := w.Send([]byte(msg)); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Receive(b); err != nil || string(b[:n]) != msg {
		t.Fatalf("%q is answered with %q, %v", msg, b[:n], err)
	}
}

// TestOneReports: what a host withholds from all workers is logged once.
func TestOneReports(t *testing.T) {
	p := newPool(t, Config{})
	for i, want := range []string{"--worker --report", "--worker", "--worker"} {
		w := get(t, p)
		b := make([]byte, wire.MaxMessage)
		if err := w.Send([]byte("arguments")); err != nil {
			t.Fatal(err)
		}
		if n, err := w.Receive(b); err != nil || string(b[:n]) != want {
			t.Errorf("worker %d has arguments %q, %v, want %q", i, b[:n], err, want)
		}
	}
}

func TestSparesAreRefilled(t *testing.T) {
	p := newPool(t, Config{Spares: 2})
	for range 5 {
		eventually(t, "two spares", func() bool { return p.Spares() == 2 })
		ask(t, get(t, p), "hello")
	}
}

func TestDeadSpareIsReplaced(t *testing.T) {
	p := newPool(t, Config{Spares: 1})
	eventually(t, "a spare", func() bool { return p.Spares() == 1 })
	p.mu.Lock()
	first := p.spares[0]
	p.mu.Unlock()
	first.cmd.Process.Kill()
	eventually(t, "another spare", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.spares) == 1 && p.spares[0] != first
	})
	ask(t, get(t, p), "hello")
}

func TestEngineThatIsMissing(t *testing.T) {
	p := newPool(t, Config{Engine: "/no/such/engine", Spares: 1})
	if w, err := p.Get(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get gives %v, %v", w, err)
	}
}

// How a worker ended is known, and the end of the channel ends it.
func TestEndings(t *testing.T) {
	p := newPool(t, Config{})
	for msg, inOrder := range map[string]bool{"exit": true, "fail": false} {
		w := get(t, p)
		if err := w.Send([]byte(msg)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Receive(make([]byte, wire.MaxMessage)); err != io.EOF {
			t.Errorf("%s: receive gives %v", msg, err)
		}
		<-w.Exited()
		if w.InOrder() != inOrder {
			t.Errorf("%s: in order %v (%s)", msg, w.InOrder(), w.Ending())
		}
	}
	w := get(t, p)
	w.Close()
	<-w.Exited()
	if !w.InOrder() {
		t.Errorf("after Close: %s", w.Ending())
	}
}

func TestDescriptorFromAWorker(t *testing.T) {
	w := get(t, newPool(t, Config{}))
	if err := w.Send([]byte("descriptor")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Receive(make([]byte, wire.MaxMessage)); !errors.Is(err, ErrDescriptor) {
		t.Errorf("receive gives %v", err)
	}
}

func TestLogIsBounded(t *testing.T) {
	var b bytes.Buffer
	p := newPool(t, Config{Logger: hclog.New(&hclog.LoggerOptions{Output: &b})})
	w := get(t, p)
	w.Name("a")
	ask(t, w, "log")
	w.Close()
	<-w.Exited() // and with it its log
	if n := strings.Count(b.String(), "\n"); n != enginelog.MaxLines {
		t.Errorf("%d lines, want %d", n, enginelog.MaxLines)
	}
	if !strings.Contains(b.String(), "slot=a") {
		t.Error("the log does not say which slot")
	}
}

// No two living workers have one user id.
func TestUserIDs(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("gives processes other user ids: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	p := newPool(t, Config{Engine: "/bin/cat", UID: 300000, UIDs: 3}) // cat refuses --worker and ends
	seen := map[int]bool{}
	for range 3 {
		uid, err := p.takeUID()
		if err != nil || seen[uid] || uid < 300000 || uid > 300002 {
			t.Fatalf("uid %d, %v after %v", uid, err, seen)
		}
		seen[uid] = true
	}
	if _, err := p.Get(); !errors.Is(err, ErrNoUID) {
		t.Errorf("a fourth worker: %v", err)
	}
	p.putUID(300001)
	w := get(t, p)
	<-w.Exited()
	if cred := w.cmd.SysProcAttr.Credential; cred == nil || cred.Uid != 300001 || cred.Gid != 300001 {
		t.Errorf("credential %+v", cred)
	}
	for uid := range seen {
		if uid != 300001 {
			p.putUID(uid)
		}
	}
}

func TestCloseEndsSpares(t *testing.T) {
	p := newPool(t, Config{Spares: 2})
	eventually(t, "two spares", func() bool { return p.Spares() == 2 })
	p.Close()
	p.Close()
	if w, err := p.Get(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Get after Close gives %v, %v", w, err)
	}
}
