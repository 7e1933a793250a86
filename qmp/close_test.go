// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

// waiters starts one goroutine in each waiting call and returns where their
// errors arrive.
func waiters(t *testing.T, srv *qmptest.Server, c *qmp.Client) <-chan error {
	t.Helper()
	errs := make(chan error, 3)
	sub := c.Subscribe()
	go func() { errs <- c.Execute(within(t), command("silent"), nil) }()
	go func() { errs <- c.WaitDeviceDeleted(within(t), "v0") }()
	go func() {
		_, err := sub.Next(within(t))
		errs <- err
	}()
	for _, name := range []string{"silent", "qom-list"} {
		srv.WaitCommand(within(t), name, 1)
	}
	// The server answers in order: behind this answer, whatever it is, there is
	// none of qom-list still to come.
	_ = c.Execute(within(t), command("sync"), nil)
	return errs
}

func dialSilent(t *testing.T) (*qmptest.Server, *qmp.Client) {
	t.Helper()
	srv, c := dial(t)
	srv.Handle("silent", qmptest.Ignore())
	srv.Handle("qom-list", qmptest.Return([]map[string]string{{"name": "v0", "type": "child<x>"}}))
	return srv, c
}

func TestCloseUnblocksEveryone(t *testing.T) {
	srv, c := dialSilent(t)
	errs := waiters(t, srv, c)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
		})
	}
	wg.Wait()
	for range cap(errs) {
		if err := <-errs; !errors.Is(err, qmp.ErrClosed) {
			t.Errorf("got %v, want %v", err, qmp.ErrClosed)
		}
	}
	afterwards(t, c, qmp.ErrClosed)
}

func TestPeerDeathReachesEveryoneWithItsCause(t *testing.T) {
	for name, test := range map[string]struct {
		last string
		want error
	}{
		"between messages": {"", io.EOF},
		"within a message": {`{"event": "RES`, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			srv, c := dialSilent(t)
			errs := waiters(t, srv, c)
			conn := srv.WaitConn(within(t), 1)
			conn.Raw([]byte(test.last))
			conn.Close()
			for range cap(errs) {
				err := <-errs
				if !errors.Is(err, qmp.ErrDisconnected) || !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v with %v", err, qmp.ErrDisconnected, test.want)
				}
			}
			afterwards(t, c, qmp.ErrDisconnected)
		})
	}
}

// afterwards checks that a dead client answers everything at once.
func afterwards(t *testing.T, c *qmp.Client, want error) {
	t.Helper()
	<-c.Done()
	_, next := c.Subscribe().Next(within(t))
	for name, err := range map[string]error{
		"Err":     c.Err(),
		"Drain":   c.Drain(),
		"Execute": c.Execute(within(t), command("quit"), nil),
		"Next":    next,
	} {
		if !errors.Is(err, want) {
			t.Errorf("%s = %v, want %v", name, err, want)
		}
	}
}

func TestEventsBeforeTheEndAreDelivered(t *testing.T) {
	srv, c := dial(t)
	sub := c.Subscribe()
	conn := srv.WaitConn(within(t), 1)
	conn.Event(qmp.EventShutdown, nil)
	conn.Event(qmp.EventStop, nil)
	conn.Close()
	<-c.Done()
	for _, want := range []string{qmp.EventShutdown, qmp.EventStop} {
		if e, err := sub.Next(within(t)); err != nil || e.Event != want {
			t.Errorf("Next() = %q, %v, want %s", e.Event, err, want)
		}
	}
	if _, err := sub.Next(within(t)); !errors.Is(err, qmp.ErrDisconnected) {
		t.Errorf("Next() = %v, want %v", err, qmp.ErrDisconnected)
	}
}

// A reply that came just before the end is not turned into an error.
func TestReplyBeforeTheEndCounts(t *testing.T) {
	for range 100 {
		srv := qmptest.Start(t)
		srv.Handle("quit", func(conn *qmptest.Conn, cmd qmptest.Command) {
			conn.Reply(cmd, struct{}{})
			conn.Close()
		})
		if err := connect(t, srv).Quit(within(t)); err != nil {
			t.Fatalf("Quit() = %v", err)
		}
		srv.Close()
	}
}

func TestDialFailures(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*qmptest.Server)
		want    error
	}{
		"no greeting":            {func(s *qmptest.Server) { s.SetGreeting("") }, context.DeadlineExceeded},
		"handshake not answered": {func(s *qmptest.Server) { s.Handle("qmp_capabilities", qmptest.Stall()) }, context.DeadlineExceeded},
		"hang-up":                {func(s *qmptest.Server) { s.Handle("qmp_capabilities", qmptest.Hangup()) }, qmp.ErrDisconnected},
		"greeting is garbage":    {func(s *qmptest.Server) { s.SetGreeting("SSH-2.0-x") }, qmp.ErrProtocol},
		"event before greeting":  {func(s *qmptest.Server) { s.SetGreeting(`{"event": "RESET"}`) }, qmp.ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			srv := qmptest.Start(t)
			test.prepare(srv)
			ctx := within(t)
			if errors.Is(test.want, context.DeadlineExceeded) {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
			}
			if _, err := qmp.Dial(ctx, srv.Path()); !errors.Is(err, test.want) {
				t.Errorf("Dial() = %v, want %v", err, test.want)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		_, err := qmp.Dial(within(t), t.TempDir()+"/none")
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Dial() = %v, want %v", err, os.ErrNotExist)
		}
	})
	t.Run("capabilities refused", func(t *testing.T) {
		srv := qmptest.Start(t)
		srv.Handle("qmp_capabilities", qmptest.Refuse(qmp.ClassGenericError, "no"))
		_, err := qmp.Dial(within(t), srv.Path())
		checkRefusal(t, err, qmp.Error{Command: "qmp_capabilities", Class: qmp.ClassGenericError, Desc: "no"})
	})
}

// However a connection ends, neither goroutines nor descriptors remain.
func TestNoLeaks(t *testing.T) {
	round := func(end func(*qmptest.Server, *qmp.Client)) {
		srv, c := dialSilent(t)
		errs := waiters(t, srv, c)
		end(srv, c)
		for range cap(errs) {
			<-errs
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	}
	ends := []func(*qmptest.Server, *qmp.Client){
		func(_ *qmptest.Server, c *qmp.Client) { _ = c.Close() }, // checked in round
		func(s *qmptest.Server, _ *qmp.Client) { s.WaitConn(within(t), 1).Close() },
		func(s *qmptest.Server, _ *qmp.Client) { s.WaitConn(within(t), 1).Raw([]byte("garbage\n")) },
	}
	round(ends[0]) // let the runtime open what it keeps
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 20 {
		for _, end := range ends {
			round(end)
		}
	}
	for start := time.Now(); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Since(start) > deadline {
			t.Fatalf("%d goroutines, had %d", runtime.NumGoroutine(), goroutines)
		}
	}
	if now := openFiles(t); now > files {
		t.Errorf("%d open files, had %d", now, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestPeerIsTheListeningProcess(t *testing.T) {
	_, c := dial(t)
	if pid, ok := c.Peer(); !ok || pid != os.Getpid() {
		t.Errorf("Peer() = %d, %v, want %d", pid, ok, os.Getpid())
	}
}

func TestGreeting(t *testing.T) {
	_, c := dial(t)
	g := c.Greeting()
	if g.Version.String() != "11.1.3" || len(g.Capabilities) != 1 || g.Capabilities[0] != "oob" {
		t.Errorf("Greeting() = %+v", g)
	}
}
