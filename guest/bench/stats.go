// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
	"time"
)

// Dist is the distribution of a duration over several rounds.
type Dist struct {
	Rounds  int           `json:"rounds"`
	Samples int           `json:"samples"` // over all rounds
	P50     time.Duration `json:"p50_ns"`  // median over the rounds of each round's median
	P99     time.Duration `json:"p99_ns"`  // median over the rounds of each round's 99th percentile
	Mean    time.Duration `json:"mean_ns"` // median over the rounds of each round's mean
}

// series collects samples by round.
type series struct {
	rounds [][]time.Duration
}

// add takes over the samples of one round; a round without any is left out.
func (s *series) add(samples []time.Duration) {
	if len(samples) > 0 {
		s.rounds = append(s.rounds, samples)
	}
}

// dist is zero if there are no samples.
func (s *series) dist() Dist {
	d := Dist{Rounds: len(s.rounds)}
	var p50, p99, means []time.Duration
	for _, r := range s.rounds {
		d.Samples += len(r)
		p50 = append(p50, percentile(r, 50))
		p99 = append(p99, percentile(r, 99))
		means = append(means, mean(r))
	}
	d.P50, d.P99, d.Mean = median(p50), median(p99), median(means)
	return d
}

// percentile is the nearest-rank percentile, 0 of nothing. It leaves samples
// in their order.
func percentile(samples []time.Duration, percent int) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	return s[max(0, (len(s)*percent+99)/100-1)]
}

// mean is that of at least one sample.
func mean(samples []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range samples {
		sum += d
	}
	return sum / time.Duration(len(samples))
}

// median is the mean of the two middle values if their number is even.
func median(values []time.Duration) time.Duration {
	n := len(values)
	if n == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(n-1)/2] + s[n/2]) / 2
}

// ratio is a/b, 0 if b is 0.
func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
