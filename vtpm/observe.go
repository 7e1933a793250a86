// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"sync/atomic"
	"time"

	"hwvtpm/coproc/abi/tpmcmd"
)

// observer counts commands by what they are about and how they ended. It is
// written on the way of every command: nothing in it locks or allocates.
type observer struct {
	pending  atomic.Int64 // commands being answered now
	duration [tpmcmd.Classes]struct {
		counts [tpmcmd.Buckets]atomic.Uint64
		sum    atomic.Uint64 // nanoseconds
	}
	results [tpmcmd.Classes][tpmcmd.Results]atomic.Uint64
}

// observed executes a request and counts it.
func (d *Device) observed(r *request, truncated bool) int {
	o := &d.observer
	o.pending.Add(1)
	defer o.pending.Add(-1)
	class := tpmcmd.ClassOf(r.command)
	start := time.Now()
	n := d.execute(r, truncated)
	ns := uint64(time.Since(start))
	o.duration[class].counts[tpmcmd.Bucket(ns)].Add(1)
	o.duration[class].sum.Add(ns)
	o.results[class][tpmcmd.ResultOf(r.response[:n])].Add(1)
	return n
}
