// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
)

// The commands that OpBench measures.
const (
	BenchGetRandom  = "getrandom"   // TPM2_GetRandom, 32 bytes
	BenchPCRRead    = "pcrread"     // TPM2_PCR_Read, PCR 16, SHA-256
	BenchPCRExtend  = "pcrextend"   // TPM2_PCR_Extend, PCR 16, SHA-256
	BenchSignECDSA  = "sign-ecdsa"  // TPM2_Sign, ECDSA P-256
	BenchSignRSA    = "sign-rsa"    // TPM2_Sign, RSASSA 2048
	BenchQuoteECDSA = "quote-ecdsa" // TPM2_Quote, ECDSA P-256, PCR 0-7
)

// BenchCommands lists them all in the order in which they are measured.
var BenchCommands = []string{
	BenchGetRandom, BenchPCRRead, BenchPCRExtend, BenchSignECDSA, BenchSignRSA, BenchQuoteECDSA,
}

// BenchArgs is one measurement: each command Iterations times, one at a time,
// as raw bytes on a blocking device node. Keys are made before the clock runs.
type BenchArgs struct {
	Device     string   `json:"device,omitempty"` // empty: /dev/tpm0
	Commands   []string `json:"commands,omitempty"`
	Iterations int      `json:"iterations"`
	Warmup     int      `json:"warmup,omitempty"`  // not counted
	Samples    bool     `json:"samples,omitempty"` // return them all
}

// BenchResult holds the times of one command in nanoseconds of the guest's
// monotonic clock, from the write of the command to the end of the read.
type BenchResult struct {
	Command string  `json:"command"`
	N       int     `json:"n"`
	Min     int64   `json:"min"`
	P50     int64   `json:"p50"`
	P99     int64   `json:"p99"`
	Max     int64   `json:"max"`
	Mean    int64   `json:"mean"`
	Samples []int64 `json:"samples,omitempty"` // in the order taken
}

// Summarize computes a result from samples; none gives zeros. The percentiles
// are the nearest-rank ones.
func Summarize(command string, samples []int64) BenchResult {
	r := BenchResult{Command: command, N: len(samples)}
	if len(samples) == 0 {
		return r
	}
	s := slices.Sorted(slices.Values(samples))
	var sum int64
	for _, v := range s {
		sum += v
	}
	rank := func(percent int) int64 { return s[(len(s)*percent+99)/100-1] }
	r.Min, r.P50, r.P99, r.Max = s[0], rank(50), rank(99), s[len(s)-1]
	r.Mean = sum / int64(len(s))
	return r
}
