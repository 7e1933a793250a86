// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Swtpm is a running swtpm, the peer that QEMU knows as tpm-emulator.
type Swtpm struct {
	Socket string // its control socket
	*process
}

// StartSwtpm starts a swtpm on the state in the folder state, or on one of its own
// in the rig if that is empty. Machines may connect one after the other.
func (r *Rig) StartSwtpm(ctx context.Context, state string) (*Swtpm, error) {
	if state == "" {
		state = filepath.Join(r.dir, "swtpm")
	}
	socket := r.path("swtpm")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("lab: swtpm: %w", err)
	}
	p, err := startProcess("swtpm", r.log("swtpm"), nil, "swtpm", "socket", "--tpm2",
		"--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket)
	if err != nil {
		return nil, err
	}
	s := &Swtpm{Socket: socket, process: p}
	r.own(s)
	ctx, cancel := context.WithTimeout(ctx, r.Env.Patience(10*time.Second))
	defer cancel()
	return s, awaitFile(ctx, socket, p)
}

// Close ends the swtpm.
func (s *Swtpm) Close() error {
	s.end(endGrace)
	return nil
}

// awaitFile waits until a program has made its socket.
func awaitFile(ctx context.Context, path string, p *process) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("lab: %s ended early: %w%s", p.name, p.waitErr, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("lab: %s made no %s: %w%s", p.name, filepath.Base(path), ctx.Err(), p.logTail())
		}
	}
}
