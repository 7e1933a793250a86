// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"slices"
	"sync"
	"time"

	"hwvtpm/coproc/abi/tpmcmd"
	"hwvtpm/coproc/metrics"
)

// tally counts by labels whose values are few, and none of a caller's choice. Its methods
// may be called from any goroutine.
type tally struct {
	labels []string

	mu sync.Mutex // guards n
	n  map[key]uint64
}

// key has a value for each label of a tally.
type key [3]string

func newTally(labels ...string) *tally { return &tally{labels: labels, n: map[key]uint64{}} }

// show makes a count that is shown before there is anything to count: who looks at how
// counts grow has to see where they begin.
func (t *tally) show(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[k] += 0
}

func (t *tally) add(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[k]++
}

// write writes all counts, in the order of their labels.
func (t *tally) write(f metrics.Family) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := make([]key, 0, len(t.n))
	for k := range t.n {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return slices.Compare(a[:], b[:]) })
	for _, k := range keys {
		labels := make([]metrics.Label, len(t.labels))
		for i, name := range t.labels {
			labels[i] = metrics.Label{Name: name, Value: k[i]}
		}
		f.Count(t.n[k], labels...)
	}
}

// latencies is a histogram of how long something takes.
type latencies struct {
	mu     sync.Mutex // guards what follows
	counts [tpmcmd.Buckets]uint64
	sum    uint64 // nanoseconds
}

func (l *latencies) add(took time.Duration) {
	ns := uint64(max(0, took))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[tpmcmd.Bucket(ns)]++
	l.sum += ns
}

func (l *latencies) write(f metrics.Family) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Latency(&l.counts, l.sum)
}
