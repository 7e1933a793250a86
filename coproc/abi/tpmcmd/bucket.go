// SPDX-License-Identifier: Apache-2.0

package tpmcmd

import (
	"math"
	"time"
)

// Buckets is how many buckets a latency histogram has.
const Buckets = 16

// bounds are the upper bounds in nanoseconds. They are closer where the short
// commands are, which is where a change of the way to the TPM shows, and wider
// above 10 ms, where only RSA key generation and trouble are.
var bounds = [Buckets]uint64{
	5e3, 10e3, 25e3, 50e3, 100e3, 250e3, 500e3,
	1e6, 2500e3, 5e6, 10e6, 50e6, 250e6,
	1e9, 5e9, math.MaxUint64,
}

// Bucket returns the first bucket whose bound a latency of ns nanoseconds does
// not exceed.
func Bucket(ns uint64) int {
	i := 0
	for ns > bounds[i] {
		i++
	}
	return i
}

// Bound returns the upper bound of bucket i, which belongs to the bucket. It is
// the longest Duration for the last bucket, which takes all the rest, and for
// every i that is no bucket.
func Bound(i int) time.Duration {
	if i < 0 || i >= Buckets-1 {
		return math.MaxInt64
	}
	return time.Duration(bounds[i])
}
