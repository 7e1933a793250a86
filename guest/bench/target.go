// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/guest/workload"
)

// target is a TPM as its client reaches it. It belongs to one goroutine.
type target interface {
	transport.TPM
	// frame turns a command into the bytes that the client's transport
	// carries. It is not part of a measurement.
	frame(command []byte) []byte
	// exchange sends framed bytes and waits for the TPM response, which is
	// valid until the next call.
	exchange(framed []byte) ([]byte, error)
	// pids are the processes that do the work, the client's own left out.
	pids() []int
	close()
}

// batch measures n exchanges of one command, after warmup that do not count.
func batch(ctx context.Context, t target, command []byte, warmup, n int) ([]time.Duration, error) {
	return workload.Measure(ctx, t.exchange, t.frame(command), warmup, n)
}

// play runs the batch of a script with what it needs before and after.
func play(ctx context.Context, t target, s workload.Script, warmup, n int) ([]time.Duration, error) {
	if err := workload.SendAll(t, s.Prepare); err != nil {
		return nil, err
	}
	samples, err := batch(ctx, t, s.Command, warmup, n)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", s.Name, err)
	}
	return samples, workload.SendAll(t, s.Cleanup)
}
