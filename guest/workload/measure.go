// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// headerSize is that of a response: tag, size, response code (TCG Part 3, 5.2).
const headerSize = 10

// Measure sends command warmup+n times, one at a time, and returns how long each
// of the last n took. Only send itself is timed. The measurement ends at the
// first error, at the first response that is not a success, and with ctx, which
// does not interrupt a command.
func Measure(ctx context.Context, send func(command []byte) ([]byte, error), command []byte, warmup, n int) ([]time.Duration, error) {
	samples := make([]time.Duration, 0, n)
	for i := range warmup + n {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("workload: %w", context.Cause(ctx))
		}
		start := time.Now()
		resp, err := send(command)
		took := time.Since(start)
		if err != nil {
			return nil, err
		}
		if err := CheckResponse(resp); err != nil {
			return nil, err
		}
		if i >= warmup {
			samples = append(samples, took)
		}
	}
	return samples, nil
}

// SendAll executes commands in order, up to the first that fails.
func SendAll(t transport.TPM, commands [][]byte) error {
	for _, c := range commands {
		resp, err := t.Send(c)
		if err != nil {
			return err
		}
		if err := CheckResponse(resp); err != nil {
			return err
		}
	}
	return nil
}

// CheckResponse is nil if resp is the response of a command that succeeded.
func CheckResponse(resp []byte) error {
	if len(resp) < headerSize {
		return fmt.Errorf("workload: TPM response of %d bytes", len(resp))
	}
	if rc := binary.BigEndian.Uint32(resp[6:]); rc != 0 {
		return fmt.Errorf("workload: TPM response code %#x", rc)
	}
	return nil
}
