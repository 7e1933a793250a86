// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/guest/agent"
)

// benchPCR is the debug PCR, which any locality may reset.
const benchPCR = 16

// recorder passes commands on and keeps the last one, so that a command that
// go-tpm has built and the TPM has accepted can be repeated byte by byte.
type recorder struct {
	transport.TPM
	last []byte
}

func (r *recorder) Send(command []byte) ([]byte, error) {
	r.last = slices.Clone(command)
	return r.TPM.Send(command)
}

func bench(ctx context.Context, a agent.BenchArgs) ([]agent.BenchResult, error) {
	if a.Iterations < 1 || a.Iterations > 1_000_000 || a.Warmup < 0 {
		return nil, fmt.Errorf("%d iterations", a.Iterations)
	}
	names := a.Commands
	if len(names) == 0 {
		names = agent.BenchCommands
	}
	d, err := openTPM(a.Device, rawDevice)
	if err != nil {
		return nil, err
	}
	defer d.Close()

	results := make([]agent.BenchResult, 0, len(names))
	for _, name := range names {
		command, cleanup, err := prepare(d, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		samples, err := measure(ctx, d, command, a.Warmup, a.Iterations)
		cleanup()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		r := agent.Summarize(name, samples)
		if a.Samples {
			r.Samples = samples
		}
		results = append(results, r)
	}
	return results, nil
}

// measure repeats one raw command. Nothing but the two system calls is timed.
func measure(ctx context.Context, d transport.TPM, command []byte, warmup, n int) ([]int64, error) {
	samples := make([]int64, 0, n)
	for i := range warmup + n {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		start := time.Now()
		resp, err := d.Send(command)
		took := time.Since(start)
		if err != nil {
			return nil, err
		}
		if err := checkResponse(resp); err != nil {
			return nil, err
		}
		if i >= warmup {
			samples = append(samples, int64(took))
		}
	}
	return samples, nil
}

// prepare executes a command once and returns its bytes. cleanup removes the
// key that it uses, if any, from the TPM.
func prepare(d transport.TPM, name string) (command []byte, cleanup func(), err error) {
	r := &recorder{TPM: d}
	cleanup = func() {}
	digest := sha256.Sum256([]byte(name))
	switch name {
	case agent.BenchGetRandom:
		_, err = tpm2.GetRandom{BytesRequested: 32}.Execute(r)
	case agent.BenchPCRRead:
		_, err = tpm2.PCRRead{PCRSelectionIn: pcrSelection(tpm2.TPMAlgSHA256, benchPCR)}.Execute(r)
	case agent.BenchPCRExtend:
		_, err = extendCommand(tpm2.TPMAlgSHA256, benchPCR, digest[:]).Execute(r)
	case agent.BenchSignECDSA:
		cleanup, err = withKey(r, ecdsaKey, func(key tpm2.AuthHandle) error { return sign(r, key, digest[:]) })
	case agent.BenchSignRSA:
		cleanup, err = withKey(r, rsaKey, func(key tpm2.AuthHandle) error { return sign(r, key, digest[:]) })
	case agent.BenchQuoteECDSA:
		cleanup, err = withKey(r, ecdsaKey, func(key tpm2.AuthHandle) error { return quote(r, key, digest[:]) })
	default:
		err = fmt.Errorf("no such command")
	}
	return r.last, cleanup, err
}

func sign(t transport.TPM, key tpm2.AuthHandle, digest []byte) error {
	_, err := tpm2.Sign{
		KeyHandle: key,
		Digest:    tpm2.TPM2BDigest{Buffer: digest},
		InScheme:  tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, // the key's own
		Validation: tpm2.TPMTTKHashCheck{
			Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull,
		},
	}.Execute(t)
	return err
}

func quote(t transport.TPM, key tpm2.AuthHandle, nonce []byte) error {
	_, err := tpm2.Quote{
		SignHandle:     key,
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      pcrSelection(tpm2.TPMAlgSHA256, 0, 1, 2, 3, 4, 5, 6, 7),
	}.Execute(t)
	return err
}
