// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// quietTime is how long a message of one kind stays away after it was logged.
const quietTime = time.Minute

// quiet keeps what clients can cause at will from filling the log.
type quiet struct {
	mu     sync.Mutex // guards what follows
	last   time.Time
	unsaid int
}

func (q *quiet) say(log hclog.Logger, msg string, args ...any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); q.last.IsZero() || now.Sub(q.last) >= quietTime {
		log.Warn(msg, append(args, "unsaid", q.unsaid)...)
		q.last, q.unsaid = now, 0
		return
	}
	q.unsaid++
}
