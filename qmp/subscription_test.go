// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"hwvtpm/qmp"
)

// names takes everything that is queued.
func names(s *qmp.Subscription) string {
	var all []string
	for {
		e, ok := s.TryNext()
		if !ok {
			return strings.Join(all, " ")
		}
		all = append(all, e.Event)
	}
}

func TestSubscriptionFilter(t *testing.T) {
	srv, c := dial(t)
	all, some, none := c.Subscribe(), c.Subscribe("A", "C"), c.Subscribe("X")
	for _, e := range []string{"A", "B", "C", "A"} {
		srv.Event(e, nil)
	}
	drain(t, c)
	for want, s := range map[string]*qmp.Subscription{"A B C A": all, "A C A": some, "": none} {
		if got := names(s); got != want {
			t.Errorf("got events %q, want %q", got, want)
		}
	}
}

func TestEventContents(t *testing.T) {
	srv, c := dial(t)
	s := c.Subscribe()
	srv.Event(qmp.EventReset, map[string]any{"guest": true, "reason": "guest-reset"})
	e, err := s.Next(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if e.Event != qmp.EventReset || e.Data["guest"] != true || e.Data["reason"] != "guest-reset" {
		t.Errorf("got %+v", e)
	}
	if e.Timestamp.Seconds != 1700000000 || e.Timestamp.Microseconds != 42 {
		t.Errorf("got time stamp %+v", e.Timestamp)
	}
}

// The oldest events go, the loss is reported once, and the rest is in order.
func TestOverflowIsReportedByNext(t *testing.T) {
	srv, c := dial(t, qmp.WithEventLimit(3))
	s := c.Subscribe()
	for _, e := range []string{"A", "B", "C", "D", "E"} {
		srv.Event(e, nil)
	}
	drain(t, c)
	if _, err := s.Next(within(t)); !errors.Is(err, qmp.ErrOverflow) || !strings.Contains(err.Error(), "2 events") {
		t.Errorf("Next() = %v, want %v of 2 events", err, qmp.ErrOverflow)
	}
	for _, want := range []string{"C", "D", "E"} {
		if e, err := s.Next(within(t)); err != nil || e.Event != want {
			t.Errorf("Next() = %q, %v, want %s", e.Event, err, want)
		}
	}
	if s.Overflowed() {
		t.Error("Overflowed() reports again what Next has reported")
	}
}

func TestOverflowIsReportedToTryNext(t *testing.T) {
	srv, c := dial(t, qmp.WithEventLimit(1))
	s := c.Subscribe()
	srv.Event("A", nil)
	drain(t, c)
	if s.Overflowed() {
		t.Error("Overflowed() with a full queue, want only beyond")
	}
	srv.Event("B", nil)
	drain(t, c)
	if got := names(s); got != "B" {
		t.Errorf("got events %q, want B", got)
	}
	if !s.Overflowed() || s.Overflowed() {
		t.Error("Overflowed() does not report the loss exactly once")
	}
}

// Large events count by their size, so that a peer cannot fill our memory.
func TestOverflowBySize(t *testing.T) {
	srv, c := dial(t)
	s := c.Subscribe()
	text := strings.Repeat("x", 1<<16)
	for range 20 {
		srv.Event("BIG", map[string]string{"text": text})
	}
	drain(t, c)
	kept := len(strings.Fields(names(s)))
	if !s.Overflowed() || kept < 10 || kept > 16 {
		t.Errorf("kept %d events of 64 KiB, want at most 16 and a report", kept)
	}
}

func TestEachEventHasOneTaker(t *testing.T) {
	srv, c := dial(t)
	s := c.Subscribe()
	const events, takers = 400, 4
	taken := make(chan float64, events)
	ctx, cancel := context.WithCancel(within(t))
	var wg sync.WaitGroup
	for range takers {
		wg.Go(func() {
			for {
				e, err := s.Next(ctx)
				if err != nil {
					return
				}
				taken <- e.Data["n"].(float64)
			}
		})
	}
	for i := range events {
		srv.Event("N", map[string]int{"n": i})
	}
	seen := make(map[float64]bool)
	for range events {
		seen[<-taken] = true
	}
	cancel()
	wg.Wait()
	if len(seen) != events {
		t.Errorf("%d different events taken, want %d", len(seen), events)
	}
}

func TestSubscriptionClose(t *testing.T) {
	srv, c := dial(t)
	s, other := c.Subscribe(), c.Subscribe()
	srv.Event("A", nil)
	drain(t, c)
	errs := make(chan error, 1)
	if _, err := s.Next(within(t)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := s.Next(within(t))
		errs <- err
	}()
	s.Close()
	s.Close()
	if err := <-errs; !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("Next() = %v, want %v", err, qmp.ErrClosed)
	}
	srv.Event("B", nil)
	drain(t, c)
	if got := names(s); got != "" {
		t.Errorf("a closed subscription got %q", got)
	}
	if got := names(other); got != "A B" {
		t.Errorf("the other subscription got %q, want A B", got)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	_, c := dial(t)
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if _, err := c.Subscribe().Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next() = %v, want %v", err, context.Canceled)
	}
}

func drain(t testing.TB, c *qmp.Client) {
	t.Helper()
	if err := c.Drain(); err != nil {
		t.Fatalf("Drain() = %v", err)
	}
}
