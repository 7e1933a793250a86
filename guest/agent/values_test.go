// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSummarize(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	tests := map[string]struct {
		in   []time.Duration
		want BenchResult
	}{
		"none":    {nil, BenchResult{Command: "c"}},
		"one":     {[]time.Duration{7}, BenchResult{Command: "c", N: 1, Min: 7, P50: 7, P99: 7, Max: 7, Mean: 7}},
		"two":     {[]time.Duration{9, 1}, BenchResult{Command: "c", N: 2, Min: 1, P50: 1, P99: 9, Max: 9, Mean: 5}},
		"hundred": {hundred, BenchResult{Command: "c", N: 100, Min: 1, P50: 50, P99: 99, Max: 100, Mean: 50}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(tt.in)
			if diff := cmp.Diff(tt.want, Summarize("c", tt.in)); diff != "" {
				t.Error(diff)
			}
			if !slices.Equal(before, tt.in) {
				t.Error("Summarize changed its argument")
			}
		})
	}
}

func TestSummarizeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, 1<<40), func(ns int64) time.Duration { return time.Duration(ns) }), 1, 300).Draw(t, "samples")
		r := Summarize("c", in)
		if !slices.IsSorted([]time.Duration{r.Min, r.P50, r.P99, r.Max}) || r.Mean < r.Min || r.Mean > r.Max {
			t.Fatalf("out of order: %+v", r)
		}
		if !slices.Contains(in, r.P50) || !slices.Contains(in, r.P99) {
			t.Fatalf("a percentile is no sample: %+v", r)
		}
	})
}

const (
	wantPCR1 = "ddd1ac0cf8441d2a3e6a832c6f9659797ed1e3d0dc2e1a941e146de0b59576c0"
	wantPCR2 = "40cd3491ed2c51f71cde9e984fdcaa370440f499d36e537edfb5b7b58dcc669b"
)

// The values were computed with another program: sha256sum over the bytes.
func TestLoadValues(t *testing.T) {
	d := LoadDigest(1)
	if got := hex.EncodeToString(d[:]); got != "cd2662154e6d76b2b2b92e70c0cac3ccf534f9b74eb5b89819ec509083d00a50" {
		t.Errorf("LoadDigest(1) = %s", got)
	}
	var zero [sha256.Size]byte
	if got := LoadPCR(zero, 0); got != zero {
		t.Errorf("LoadPCR(zero, 0) = %x", got)
	}
	one, two := LoadPCR(zero, 1), LoadPCR(zero, 2)
	if got := hex.EncodeToString(one[:]); got != wantPCR1 {
		t.Errorf("LoadPCR(zero, 1) = %s", got)
	}
	if got := hex.EncodeToString(two[:]); got != wantPCR2 {
		t.Errorf("LoadPCR(zero, 2) = %s", got)
	}
}
