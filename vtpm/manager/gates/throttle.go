// SPDX-License-Identifier: Apache-2.0

package gates

import (
	"context"
	"io"
	"time"
)

// A guest may send so many bytes at once, which is two of the largest requests, and
// then so many in a second. What it sends beyond that waits on its side.
const (
	slowBurst = 4 << 20
	slowRate  = 256 << 10
)

// throttle is a guest's connection.
type throttle struct {
	io.ReadWriteCloser
	ctx context.Context

	used float64 // bytes, less what time has given back
	at   time.Time
}

// Read implements io.Reader.
func (t *throttle) Read(b []byte) (int, error) {
	now := time.Now()
	t.used = max(0, t.used-now.Sub(t.at).Seconds()*slowRate)
	t.at = now
	if over := t.used - slowBurst; over > 0 {
		wait := time.NewTimer(time.Duration(over / slowRate * float64(time.Second)))
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-t.ctx.Done():
			return 0, t.ctx.Err()
		}
	}
	n, err := t.ReadWriteCloser.Read(b)
	t.used += float64(n)
	return n, err
}
