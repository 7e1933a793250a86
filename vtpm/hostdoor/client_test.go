// SPDX-License-Identifier: Apache-2.0

package hostdoor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostdoor"
	"hwvtpm/vtpm/hostdoor/hostdoortest"
)

// start serves a daemon, and gives a client of it.
func start(t *testing.T, a hostdoortest.Answer) *hostdoor.Client {
	t.Helper()
	c := &hostdoor.Client{Socket: hostdoortest.SocketPath(t)}
	hostdoortest.Serve(t, c.Socket, a)
	return c
}

func someMap(t *testing.T) (m coproc.PCRMap) {
	t.Helper()
	for bank, size := range map[abi.Banks]int{abi.BankSHA1: 20, abi.BankSHA256: 32, abi.BankSHA384: 48, abi.BankSHA512: 64} {
		var values [][]byte
		for pcr := range abi.HostPCRs {
			values = append(values, bytes.Repeat([]byte{byte(bank)<<4 | byte(pcr)}, size))
		}
		if err := m.SetBank(bank, values); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestPCRs(t *testing.T) {
	want := someMap(t)
	c := start(t, func(_ context.Context, op string, _ json.RawMessage) (any, error) {
		if op != door.OpPCRs {
			t.Errorf("operation %q", op)
		}
		return hostdoor.FromMap(&want), nil
	})
	if got, err := c.PCRs(t.Context()); err != nil || got != want {
		t.Errorf("PCRs = %v, %v", got, err)
	}
}

// TestBadPCRs: a daemon that is wrong maps nothing.
func TestBadPCRs(t *testing.T) {
	good := hostdoor.FromMap(new(someMap(t))).Banks["sha256"]
	short := append([]string{"00"}, good[1:]...)
	for name, p := range map[string]door.PCRs{
		"no banks":     {},
		"unknown bank": {Banks: map[string][]string{"md5": good}},
		"seven PCRs":   {Banks: map[string][]string{"sha256": good[:7]}},
		"nine PCRs":    {Banks: map[string][]string{"sha256": append(good[:8:8], good[0])}},
		"other digest": {Banks: map[string][]string{"sha384": good}},
		"short digest": {Banks: map[string][]string{"sha256": short}},
		"no digits":    {Banks: map[string][]string{"sha256": append([]string{strings.Repeat("x", 64)}, good[1:]...)}},
	} {
		c := start(t, func(context.Context, string, json.RawMessage) (any, error) { return p, nil })
		if m, err := c.PCRs(t.Context()); err == nil {
			t.Errorf("%s: %v", name, m.Banks())
		}
	}
}

func TestBootEvidence(t *testing.T) {
	size := 0
	c := start(t, func(_ context.Context, op string, body json.RawMessage) (any, error) {
		var r door.BootEvidenceRequest
		if err := door.Decode(body, &r); err != nil || op != door.OpBootEvidence || r.Slot != "vm-a" || len(r.Run) != 32 || r.Run[0] != 7 {
			t.Errorf("%s %s: %v", op, body, err)
		}
		return door.BootEvidence{Evidence: make([]byte, size)}, nil
	})
	for n, ok := range map[int]bool{0: false, 1: true, abi.MaxBootEvidence: true, abi.MaxBootEvidence + 1: false} {
		size = n
		if b, err := c.BootEvidence(t.Context(), "vm-a", coproc.RunID{7}); (err == nil) != ok || ok && len(b) != n {
			t.Errorf("evidence of %d bytes: %d, %v", n, len(b), err)
		}
	}
}

// TestDaemonComesBack: a daemon that is replaced, dies over a question or is busy is
// asked again.
func TestDaemonComesBack(t *testing.T) {
	want := someMap(t)
	asked := 0
	c := start(t, func(context.Context, string, json.RawMessage) (any, error) {
		if asked++; asked < 3 {
			return nil, door.Errorf(door.CodeBusy, "come again")
		}
		return hostdoor.FromMap(&want), nil
	})
	if got, err := c.PCRs(t.Context()); err != nil || got != want {
		t.Errorf("a daemon that is busy: %v", err)
	}
	late := &hostdoor.Client{Socket: hostdoortest.SocketPath(t)}
	begun := make(chan struct{})
	dying := hostdoortest.Serve(t, late.Socket, func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	done := make(chan error)
	go func() {
		_, err := late.PCRs(t.Context())
		done <- err
	}()
	<-begun
	dying()
	hostdoortest.Serve(t, late.Socket, func(context.Context, string, json.RawMessage) (any, error) { return hostdoor.FromMap(&want), nil })
	if err := <-done; err != nil {
		t.Errorf("a daemon that is replaced: %v", err)
	}
}

// TestDaemonIsBusy: a daemon that has much to do is asked until it answers, or it is too
// late; then the error is what it has said.
func TestDaemonIsBusy(t *testing.T) {
	want := someMap(t)
	free := time.Now().Add(hostdoor.Patience + time.Second)
	c := start(t, func(context.Context, string, json.RawMessage) (any, error) {
		if time.Now().Before(free) {
			return nil, door.Errorf(door.CodeBusy, "come again")
		}
		return hostdoor.FromMap(&want), nil
	})
	c.Timeout = time.Minute
	if _, err := c.PCRs(t.Context()); err != nil {
		t.Errorf("a daemon that is busy for long: %v", err)
	}
	free = time.Now().Add(time.Hour)
	c.Timeout = 300 * time.Millisecond
	if _, err := c.PCRs(t.Context()); door.Code(err) != door.CodeBusy {
		t.Errorf("a daemon that is busy for too long: %v", err)
	}
}

// TestDaemonAway: a daemon that is not there, refuses, or hangs is an error in time.
func TestDaemonAway(t *testing.T) {
	away := &hostdoor.Client{Socket: filepath.Join(t.TempDir(), "none")}
	if _, err := away.PCRs(t.Context()); err == nil || !strings.Contains(err.Error(), "daemon is away") {
		t.Errorf("no daemon: %v", err)
	}
	refuses := start(t, func(context.Context, string, json.RawMessage) (any, error) {
		return nil, door.Errorf(door.CodeInternal, "the log does not explain the PCRs")
	})
	if _, err := refuses.PCRs(t.Context()); err == nil || !strings.Contains(err.Error(), "the log does not explain") {
		t.Errorf("a refusal: %v", err)
	}
	hangs := start(t, func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	hangs.Timeout = 20 * time.Millisecond
	if _, err := hangs.PCRs(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a daemon that hangs: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hangs.Timeout = 0
	if _, err := hangs.PCRs(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gives up: %v", err)
	}
}
