// SPDX-License-Identifier: Apache-2.0

package bolt

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"hwvtpm/control/store"
	"hwvtpm/control/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) store.Store {
		s, err := Open(filepath.Join(dir, "db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestMain lets the test program be the other process.
func TestMain(m *testing.M) {
	if path := os.Getenv("TEST_OPEN"); path != "" {
		_, err := Open(path)
		if errors.Is(err, store.ErrInUse) {
			os.Exit(42)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	other := func() int {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TEST_OPEN="+path)
		cmd.Run()
		return cmd.ProcessState.ExitCode()
	}
	if code := other(); code != 42 {
		t.Errorf("the other process: exit code %d, want 42 for ErrInUse", code)
	}
	s.Close()
	if code := other(); code != 0 {
		t.Errorf("the other process after Close: exit code %d", code)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestNotAStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, make([]byte, 9000), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path); err == nil {
		s.Close()
		t.Error("Open of zeros succeeds")
	}
}
