// SPDX-License-Identifier: Apache-2.0

package hostdoortest

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/vtpm/bootevidence/bootevidencetest"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostdoor"
)

// Answer answers a question.
type Answer func(ctx context.Context, op string, body json.RawMessage) (any, error)

// Do implements door.Handler.
func (a Answer) Do(ctx context.Context, _ door.Caller, op string, body json.RawMessage) (any, error) {
	return a(ctx, op, body)
}

// SocketPath gives a path for a daemon's socket.
func SocketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hostd") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// Serve serves backends on a socket until stop is called or the test ends.
func Serve(t testing.TB, path string, a Answer) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = door.Serve(ctx, c, door.Caller{UID: -1}, a) })
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close() // and removes the socket
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// Daemon tells what a host's TPM says.
type Daemon struct {
	Host atomic.Pointer[bootevidencetest.Host]
}

// Start serves a host's daemon on a socket, as Serve.
func Start(t testing.TB, path string, h *bootevidencetest.Host) (d *Daemon, stop func()) {
	t.Helper()
	d = &Daemon{}
	d.Host.Store(h)
	return d, Serve(t, path, d.answer)
}

func (d *Daemon) answer(_ context.Context, op string, body json.RawMessage) (any, error) {
	h := d.Host.Load()
	switch op {
	case door.OpPCRs:
		return hostdoor.FromMap(&h.PCRs), nil
	case door.OpBootEvidence:
		return evidence(h, body)
	}
	return nil, door.Errorf(door.CodeNotFound, "no operation %q for backends", op)
}

func evidence(h *bootevidencetest.Host, body json.RawMessage) (any, error) {
	var r door.BootEvidenceRequest
	if err := door.Decode(body, &r); err != nil {
		return nil, err
	}
	run := coproc.RunID{}
	if len(r.Run) != len(run) {
		return nil, door.Errorf(door.CodeBadRequest, "a run of %d bytes", len(r.Run))
	}
	copy(run[:], r.Run)
	e, err := h.Evidence(run, r.Slot)
	if err != nil {
		return nil, err
	}
	b, err := e.Marshal()
	return door.BootEvidence{Evidence: b}, err
}
