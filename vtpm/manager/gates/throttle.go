// SPDX-License-Identifier: Apache-2.0

package gates

import (
	"context"
	"io"
	"sync"
	"time"
)

// A guest may send so many bytes at once, which is two of the largest requests, and
// then so many in a second, by all its connections, however often it makes new ones.
// What it sends beyond that waits on its side.
const (
	slowBurst = 4 << 20
	slowRate  = 256 << 10
)

// throttle is a guest's connection.
type throttle struct {
	io.ReadWriteCloser
	ctx  context.Context
	sent *meter // by the guest
}

// meter counts what a guest has sent. Its methods may be called from any goroutine.
type meter struct {
	mu   sync.Mutex // guards what follows
	used float64    // bytes, less what time has given back
	at   time.Time
}

// add counts bytes, and tells how long to wait before more.
func (m *meter) add(n int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.used = max(0, m.used-now.Sub(m.at).Seconds()*slowRate) + float64(n)
	m.at = now
	return time.Duration(max(0, m.used-slowBurst) / slowRate * float64(time.Second))
}

// Read implements io.Reader.
func (t *throttle) Read(b []byte) (int, error) {
	if over := t.sent.add(0); over > 0 {
		wait := time.NewTimer(over)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-t.ctx.Done():
			return 0, t.ctx.Err()
		}
	}
	n, err := t.ReadWriteCloser.Read(b)
	t.sent.add(n)
	return n, err
}
