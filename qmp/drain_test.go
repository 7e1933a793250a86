// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

// What the peer has written before Drain is called, TryNext finds after it,
// whether the reader goroutine or Drain got the bytes.
func TestDrainSeesEverythingWrittenBefore(t *testing.T) {
	srv, c := dial(t)
	sub := c.Subscribe("RESET")
	for i := range 1000 {
		srv.Event("RESET", map[string]any{"n": i})
		if err := c.Drain(); err != nil {
			t.Fatalf("Drain() = %v", err)
		}
		e, ok := sub.TryNext()
		if !ok {
			t.Fatalf("round %d: event is not there after Drain", i)
		}
		if got := e.Data["n"]; got != float64(i) {
			t.Fatalf("round %d: got event %v", i, got)
		}
	}
}

// A peer that waits for us answers nothing; Drain must not ask. This is QEMU in
// a vhost-user request, when the device wants to know of a reset.
func TestDrainWhileThePeerWaitsForUs(t *testing.T) {
	srv, c := dial(t)
	drained := make(chan struct{})
	srv.Handle("cont", func(conn *qmptest.Conn, cmd qmptest.Command) {
		conn.Event(qmp.EventReset, nil)
		<-drained
		conn.Reply(cmd, struct{}{})
	})
	sub := c.Subscribe(qmp.EventReset)
	result := make(chan error, 1)
	go func() { result <- c.Cont(within(t)) }()
	if _, err := sub.Next(within(t)); err != nil {
		t.Fatal(err)
	}
	drain(t, c)
	close(drained)
	if err := <-result; err != nil {
		t.Errorf("Cont() = %v", err)
	}
}

func TestDrainKeepsThePartialLine(t *testing.T) {
	srv, c := dial(t)
	sub := c.Subscribe()
	conn := srv.WaitConn(within(t), 1)
	line := `{"event": "RESET", "data": {"guest": true}}` + "\r\n"
	for i := range line {
		if _, ok := sub.TryNext(); ok {
			t.Fatalf("an event after %d of %d bytes", i, len(line))
		}
		conn.Raw([]byte{line[i]})
		drain(t, c)
	}
	if e, ok := sub.TryNext(); !ok || e.Event != "RESET" || e.Data["guest"] != true {
		t.Errorf("TryNext() = %+v, %v", e, ok)
	}
}

func TestDrainFindsTheEndOfTheStream(t *testing.T) {
	srv, c := dial(t)
	sub := c.Subscribe()
	conn := srv.WaitConn(within(t), 1)
	conn.Event(qmp.EventShutdown, nil)
	conn.Close()
	if err := c.Drain(); !errors.Is(err, qmp.ErrDisconnected) {
		t.Errorf("Drain() = %v, want %v", err, qmp.ErrDisconnected)
	}
	if got := names(sub); got != qmp.EventShutdown {
		t.Errorf("got events %q, want %s", got, qmp.EventShutdown)
	}
}

// A peer that never stops writing cannot keep Drain.
func TestDrainUnderAFlood(t *testing.T) {
	srv, c := dial(t)
	conn := srv.WaitConn(within(t), 1)
	flood := bytes.Repeat([]byte(`{"event": "NOISE"}`+"\n"), 500)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c.Err() == nil {
			conn.Raw(flood)
		}
	})
	for range 20 {
		drain(t, c)
	}
	conn.Close()
	wg.Wait()
}

// Whoever reads, the order of the stream is kept.
func TestConcurrentDrainsKeepTheOrder(t *testing.T) {
	srv, c := dial(t)
	sub := c.Subscribe()
	const events = 2000
	var wg sync.WaitGroup
	sent := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-sent:
					return
				default:
					drain(t, c)
				}
			}
		})
	}
	for i := range events {
		srv.Event("N", map[string]int{"n": i})
	}
	close(sent)
	wg.Wait()
	drain(t, c)
	for i := range events {
		e, ok := sub.TryNext()
		if !ok || e.Data["n"] != float64(i) {
			t.Fatalf("event %d: got %v, %v", i, e.Data, ok)
		}
	}
}

// A socket that somebody made blocking must not make Drain block.
func TestDrainOfABlockingSocket(t *testing.T) {
	srv := qmptest.Start(t)
	c, conn := connectSocket(t, srv)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = unix.SetNonblock(int(fd), false) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	drain(t, c)
}
