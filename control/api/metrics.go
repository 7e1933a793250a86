// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"hwvtpm/coproc/metrics"
	"hwvtpm/vtpm/attest"
)

// counters counts requests by route and status: a few dozen pairs at most.
type counters struct {
	mu sync.Mutex // guards n
	n  map[outcome]uint64
}

type outcome struct {
	route  string
	status int
}

func (c *counters) count(route string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[outcome]uint64{}
	}
	c.n[outcome{route, status}]++
}

func (c *counters) write(w *metrics.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []outcome
	for o := range c.n {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b outcome) int {
		return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.status, b.status))
	})
	f := w.Counter("vtpm_control_requests_total", "Requests by route and HTTP status; 200 stands for every success.")
	for _, o := range all {
		f.Count(c.n[o], metrics.Label{Name: "route", Value: o.route}, metrics.Label{Name: "status", Value: strconv.Itoa(o.status)})
	}
}

// verdicts counts what became of evidence.
type verdicts struct{ held, notHeld atomic.Uint64 }

func (v *verdicts) count(r *attest.Result) {
	if r.OK {
		v.held.Add(1)
	} else {
		v.notHeld.Add(1)
	}
}

func (v *verdicts) write(w *metrics.Writer) {
	f := w.Counter("vtpm_control_verifications_total", "Evidence that was judged, by whether it held.")
	f.Count(v.held.Load(), metrics.Label{Name: "verdict", Value: "held"})
	f.Count(v.notHeld.Load(), metrics.Label{Name: "verdict", Value: "not held"})
}
