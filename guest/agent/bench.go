// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"
)

// BenchArgs is one measurement: each command Iterations times, one at a time,
// as raw bytes on a blocking device node. Keys are made before the clock runs.
type BenchArgs struct {
	Device     string   `json:"device,omitempty"`   // empty: /dev/tpm0
	Commands   []string `json:"commands,omitempty"` // names of package workload; none: all
	Iterations int      `json:"iterations"`
	Warmup     int      `json:"warmup,omitempty"`  // not counted
	Samples    bool     `json:"samples,omitempty"` // return them all
}

// BenchResult holds the times of one command by the guest's monotonic clock, in
// nanoseconds on the wire, from the write of the command to the end of the read.
type BenchResult struct {
	Command string          `json:"command"`
	N       int             `json:"n"`
	Min     time.Duration   `json:"min"`
	P50     time.Duration   `json:"p50"`
	P99     time.Duration   `json:"p99"`
	Max     time.Duration   `json:"max"`
	Mean    time.Duration   `json:"mean"`
	Samples []time.Duration `json:"samples,omitempty"` // in the order taken
}

// Summarize computes a result from samples; none gives zeros. The percentiles
// are the nearest-rank ones.
func Summarize(command string, samples []time.Duration) BenchResult {
	r := BenchResult{Command: command, N: len(samples)}
	if len(samples) == 0 {
		return r
	}
	s := slices.Sorted(slices.Values(samples))
	var sum time.Duration
	for _, v := range s {
		sum += v
	}
	rank := func(percent int) time.Duration { return s[(len(s)*percent+99)/100-1] }
	r.Min, r.P50, r.P99, r.Max = s[0], rank(50), rank(99), s[len(s)-1]
	r.Mean = sum / time.Duration(len(s))
	return r
}
