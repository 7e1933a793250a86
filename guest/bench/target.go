// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
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
func batch(t target, command []byte, warmup, n int) ([]time.Duration, error) {
	framed := t.frame(command)
	samples := make([]time.Duration, 0, n)
	for i := range warmup + n {
		start := time.Now()
		resp, err := t.exchange(framed)
		took := time.Since(start)
		if err != nil {
			return nil, err
		}
		if err := checkResponse(resp); err != nil {
			return nil, err
		}
		if i >= warmup {
			samples = append(samples, took)
		}
	}
	return samples, nil
}

// play runs the batch of a script with what it needs before and after.
func (s script) play(t target, warmup, n int) ([]time.Duration, error) {
	if err := sendAll(t, s.prepare); err != nil {
		return nil, err
	}
	samples, err := batch(t, s.command, warmup, n)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", s.name, err)
	}
	return samples, sendAll(t, s.cleanup)
}

func sendAll(t target, commands [][]byte) error {
	for _, c := range commands {
		resp, err := t.Send(c)
		if err != nil {
			return err
		}
		if err := checkResponse(resp); err != nil {
			return err
		}
	}
	return nil
}
