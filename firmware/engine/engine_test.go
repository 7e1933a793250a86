// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"errors"
	"sync"
	"testing"
)

// One engine per process: the tests share it and are not parallel.
var shared = sync.OnceValues(New)

var (
	cmdStartup   = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	cmdGetRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16}
)

func newTPM(t testing.TB) (*Engine, []byte) {
	t.Helper()
	e, err := shared()
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(e.Stop)
	if err := e.Manufacture(); err != nil {
		t.Fatalf("Manufacture: %v", err)
	}
	perm := e.Stored(nil)
	if len(perm) == 0 {
		t.Fatal("a new TPM stored nothing")
	}
	return e, perm
}

func run(t testing.TB, e *Engine, cmd []byte) []byte {
	t.Helper()
	resp := make([]byte, MaxResponse)
	n, _, err := e.Process(0, bytes.Clone(cmd), resp)
	if err != nil {
		t.Fatalf("Process(%x): %v", cmd, err)
	}
	return resp[:n]
}

func TestOneEnginePerProcess(t *testing.T) {
	newTPM(t)
	if _, err := New(); !errors.Is(err, ErrBusy) {
		t.Errorf("second New: %v, want ErrBusy", err)
	}
}

func TestManufactureMakesDifferentTPMs(t *testing.T) {
	_, a := newTPM(t)
	_, b := newTPM(t)
	if bytes.Equal(a, b) {
		t.Error("two TPMs are the same")
	}
}

// TestVolatileResumes: with the volatile state loaded the TPM needs no
// Startup, without it does.
func TestVolatileResumes(t *testing.T) {
	e, perm := newTPM(t)
	run(t, e, cmdStartup)
	perm = append(perm[:0], e.Stored(nil)...)
	vol := make([]byte, 1<<16)
	n, err := e.Volatile(vol)
	if err != nil {
		t.Fatalf("Volatile: %v", err)
	}
	if err := e.Load(perm, vol[:n]); err != nil {
		t.Fatalf("Load: %v", err)
	}
	if got := run(t, e, cmdGetRandom); len(got) != 28 {
		t.Errorf("GetRandom after a resume = %x", got)
	}
	if err := e.Load(perm, nil); err != nil {
		t.Fatalf("Load: %v", err)
	}
	if got := run(t, e, cmdGetRandom); !bytes.Equal(got[6:], []byte{0, 0, 1, 0}) {
		t.Errorf("GetRandom after a power cycle = %x, want TPM_RC_INITIALIZE", got)
	}
}

// TestLoadRefusesDamage: a damaged state is an error and never a new TPM.
func TestLoadRefusesDamage(t *testing.T) {
	e, perm := newTPM(t)
	for name, b := range map[string][]byte{
		"empty":     nil,
		"one byte":  {0},
		"truncated": perm[:len(perm)/2],
		"zeros":     make([]byte, len(perm)),
	} {
		if err := e.Load(b, nil); err == nil {
			t.Errorf("%s: loaded", name)
		}
		if _, _, err := e.Process(0, cmdGetRandom, make([]byte, MaxResponse)); !errors.Is(err, ErrStopped) {
			t.Errorf("%s: then Process: %v, want ErrStopped", name, err)
		}
		if err := e.Hash(nil); !errors.Is(err, ErrStopped) {
			t.Errorf("%s: then Hash: %v, want ErrStopped", name, err)
		}
	}
	if err := e.Load(perm, []byte("no volatile state")); err == nil {
		t.Error("damaged volatile state was loaded")
	}
	if err := e.Load(perm, nil); err != nil {
		t.Errorf("Load after the damage: %v", err)
	}
}

func TestSmallBuffers(t *testing.T) {
	e, _ := newTPM(t)
	if _, _, err := e.Process(0, cmdStartup, make([]byte, MaxResponse-1)); !errors.Is(err, ErrTooSmall) {
		t.Errorf("Process: %v, want ErrTooSmall", err)
	}
	if n, err := e.Volatile(make([]byte, 100)); !errors.Is(err, ErrTooSmall) || n <= 100 {
		t.Errorf("Volatile = %d, %v, want the size and ErrTooSmall", n, err)
	}
}

func TestStoredOnce(t *testing.T) {
	e, _ := newTPM(t)
	if got := e.Stored(nil); got != nil {
		t.Errorf("Stored gave %d bytes a second time", len(got))
	}
}

func TestVersion(t *testing.T) {
	if v := Version(); v>>16 != 0 || v>>8 < 9 {
		t.Errorf("Version() = %#x, want 0.9 or later", v)
	}
}

// A TPM that a hash sequence was given before TPM2_Startup knows of it when it is loaded
// again, and then starts in another way: PCR 0 is not reset (Part 3, 9.3).
func TestHashIsInState(t *testing.T) {
	readPCR0 := []byte{0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0}
	e, perm := newTPM(t)
	if err := e.Hash([]byte("firmware")); err != nil {
		t.Fatal(err)
	}
	vol := make([]byte, 1<<16)
	n, err := e.Volatile(vol)
	if err != nil {
		t.Fatal(err)
	}
	run(t, e, cmdStartup)
	want := run(t, e, readPCR0)
	if err := e.Load(perm, vol[:n]); err != nil {
		t.Fatal(err)
	}
	run(t, e, cmdStartup)
	if got := run(t, e, readPCR0); !bytes.Equal(got, want) || bytes.HasSuffix(got, make([]byte, 32)) {
		t.Errorf("PCR 0 of a TPM that was loaded: %x, want %x", got, want)
	}
}
