// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"context"
	"sync"
	"testing"
	"time"

	"hwvtpm/qmp/qmptest"
)

const hang = 30 * time.Second

// startMonitor runs a monitor until the test ends; news gets a value for each
// notification.
func startMonitor(t *testing.T, path string) (m *QMPMonitor, news chan struct{}) {
	t.Helper()
	m, news = NewQMPMonitor(path, nil), make(chan struct{}, 64)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx, func() { news <- struct{}{} }) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return m, news
}

func waitConnected(t *testing.T, m *QMPMonitor) {
	t.Helper()
	for end := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		if _, err := m.Poll(); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the monitor does not connect")
		}
	}
}

func waitNews(t *testing.T, news chan struct{}) {
	t.Helper()
	select {
	case <-news:
	case <-time.After(hang):
		t.Fatal("the monitor does not notify")
	}
}

func TestMonitorPollSeesAResetOnce(t *testing.T) {
	server := qmptest.Start(t)
	m, news := startMonitor(t, server.Path())
	waitConnected(t, m)
	for range 200 {
		server.Event("STOP", nil)
		server.Event("RESET", map[string]any{"guest": true})
		if reset, err := m.Poll(); !reset || err != nil {
			t.Fatalf("Poll after RESET = %v, %v, want true", reset, err)
		}
		if reset, err := m.Poll(); reset || err != nil {
			t.Fatalf("a second Poll = %v, %v, want false", reset, err)
		}
		waitNews(t, news)
	}
}

func TestMonitorComesBack(t *testing.T) {
	server := qmptest.Start(t)
	m, news := startMonitor(t, server.Path())
	waitConnected(t, m)
	server.WaitConn(t.Context(), 1).Close()
	waitNews(t, news) // the end is news: what was said before it counts
	m.Wake()
	waitConnected(t, m)
	server.Event("RESET", nil)
	if reset, err := m.Poll(); !reset || err != nil {
		t.Errorf("Poll on the second connection = %v, %v, want true", reset, err)
	}
}

func TestMonitorWithoutSocket(t *testing.T) {
	m, _ := startMonitor(t, t.TempDir()+"/none")
	m.Wake()
	if reset, err := m.Poll(); reset || err == nil {
		t.Errorf("Poll without a connection = %v, %v, want an error", reset, err)
	}
}

// TestMonitorIsPatient: a monitor that lets everybody in and hangs up at once must not
// keep a processor and the log busy. Five waits between six calls are 620 ms or more.
func TestMonitorIsPatient(t *testing.T) {
	server := qmptest.Start(t)
	server.Handle("qmp_capabilities", func(c *qmptest.Conn, cmd qmptest.Command) {
		c.Reply(cmd, struct{}{})
		c.Close()
	})
	start := time.Now()
	m := NewQMPMonitor(server.Path(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { m.Run(ctx, func() {}) })
	server.WaitConn(t.Context(), 6)
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("six calls within %v", took)
	}
}
