// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// TestOpenErrors: what the worker finds wrong with its directory comes to the
// caller as a sentinel, a status and words.
func TestOpenErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    error
		status  abi.Status
		words   string
	}{
		"in use": {func(t *testing.T, dir string) { openSlot(t, dir) },
			coproc.ErrInUse, abi.StatusInUse, "in use"},
		"not a slot": {func(t *testing.T, dir string) {
			os.Mkdir(dir, 0o700)
			os.WriteFile(filepath.Join(dir, "holiday.jpg"), nil, 0o600)
		}, coproc.ErrCorrupt, abi.StatusCorrupt, "empty directory"},
		"corrupt": {func(t *testing.T, dir string) {
			c, _ := openSlot(t, dir)
			c.Close()
			path := filepath.Join(dir, "state")
			b, _ := os.ReadFile(path)
			b[len(b)/2] ^= 1
			os.WriteFile(path, b, 0o600)
		}, coproc.ErrCorrupt, abi.StatusCorrupt, "backup"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tpm")
			tc.prepare(t, dir)
			c, err := Open(testConfig(t, dir))
			if err == nil {
				c.Close()
				t.Fatal("Open succeeded")
			}
			e, ok := errors.AsType[*coproc.Error](err)
			if !ok || !errors.Is(err, tc.want) || e.Status != tc.status || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("Open: %v, want %v, status %v, with %q", err, tc.want, tc.status, tc.words)
			}
		})
	}
}

func TestOpenWithoutEngine(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "tpm"))
	cfg.EnginePath = "/nonexistent/engine"
	if _, err := Open(cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open: %v, want os.ErrNotExist", err)
	}
	cfg.EnginePath = "/bin/true" // ends without a word
	if _, err := Open(cfg); err == nil {
		t.Error("Open with an engine that says nothing succeeded")
	}
}

// TestRelativePaths: paths are the caller's, not the worker's, who runs
// somewhere else.
func TestRelativePaths(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Symlink(built.Path(t, EngineName), EngineName); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "tpm")
	cfg.EnginePath = EngineName
	c, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tpm", "state")); err != nil {
		t.Errorf("state is elsewhere: %v", err)
	}
}

// TestExecuteAllocatesNothing: the way of a command is free of garbage.
func TestExecuteAllocatesNothing(t *testing.T) {
	r := startSlot(t, testConfig(t, filepath.Join(t.TempDir(), "tpm")))
	resp := make([]byte, coproc.MaxTransfer)
	// A context that can end costs the watch over it; one that cannot, nothing.
	for ctx, want := range map[context.Context]float64{t.Context(): 4, context.Background(): 0} {
		n := testing.AllocsPerRun(100, func() {
			if _, err := r.Execute(ctx, coproc.Command{Bytes: cmdGetRandom32}, resp); err != nil {
				t.Fatal(err)
			}
		})
		if n > want {
			t.Errorf("%v allocations for a command with %v, want at most %v", n, ctx, want)
		}
	}
}
