// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// lines counts the records of a log.
type lines struct {
	mu sync.Mutex
	n  int
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += bytes.Count(p, []byte{'\n'})
	return len(p), nil
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// TestBrokenRingsDoNotFillTheLog: a guest can break its ring, reset the device
// and break the ring again as often as it likes.
func TestBrokenRingsDoNotFillTheLog(t *testing.T) {
	var log lines
	path, _ := serve(t, vhostuser.Config{
		Device: &echo{},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: &log}),
	})
	f := dial(t, path, vhostusertest.Options{})
	before := log.count()
	const times = 100
	for range times {
		f.Driver().SetAvailIdx(40000)
		vhostusertest.Signal(f.Kick)
		must(t, vhostusertest.WaitEvent(f.Err, hangGuard))
		must(t, f.Restart())
	}
	if n := log.count() - before; n == 0 || n > times/2 {
		t.Errorf("%d broken rings made %d log lines, want some but few", times, n)
	}
}
