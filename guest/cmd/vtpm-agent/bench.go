// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/workload"
)

func bench(ctx context.Context, a agent.BenchArgs) ([]agent.BenchResult, error) {
	if a.Iterations < 1 || a.Iterations > 1_000_000 || a.Warmup < 0 {
		return nil, fmt.Errorf("%d iterations", a.Iterations)
	}
	names := a.Commands
	if len(names) == 0 {
		names = workload.Commands
	}
	d, err := openTPM(a.Device, rawDevice)
	if err != nil {
		return nil, err
	}
	defer d.Close()

	results := make([]agent.BenchResult, 0, len(names))
	for _, name := range names {
		r, err := benchOne(ctx, d, name, a)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

// benchOne measures one command. Nothing but the two system calls of Send is
// timed.
func benchOne(ctx context.Context, d transport.TPM, name string, a agent.BenchArgs) (agent.BenchResult, error) {
	s, err := workload.New(d, name)
	if err != nil {
		return agent.BenchResult{}, err
	}
	samples, err := workload.Measure(ctx, d.Send, s.Command, a.Warmup, a.Iterations)
	// A key that cannot be flushed is gone with the TPM's next reset.
	_ = workload.SendAll(d, s.Cleanup)
	if err != nil {
		return agent.BenchResult{}, fmt.Errorf("%s: %w", name, err)
	}
	r := agent.Summarize(name, samples)
	if a.Samples {
		r.Samples = samples
	}
	return r, nil
}
