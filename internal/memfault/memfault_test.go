// SPDX-License-Identifier: Apache-2.0

package memfault

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// vanished is a page of a file that was made shorter.
func vanished(t *testing.T) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	return mem
}

func TestFaultIsAnError(t *testing.T) {
	mem := vanished(t)
	for name, use := range map[string]func(){
		"read":  func() { copy(make([]byte, 8), mem) },
		"write": func() { mem[100] = 1 },
	} {
		if err := Catch(func() error { use(); return nil }); !errors.Is(err, Err) {
			t.Errorf("%s: %v, want Err", name, err)
		}
	}
	other := errors.New("other")
	if err := Catch(func() error { return other }); err != other {
		t.Errorf("Catch of what does not fault: %v, want %v", err, other)
	}
}

// TestOtherPanicsGoOn: a bug is no fault.
func TestOtherPanicsGoOn(t *testing.T) {
	var none *[8]byte
	for name, bug := range map[string]func(){
		"nil pointer":  func() { none[0] = 1 },
		"out of range": func() { _ = make([]byte, 1)[len(t.Name())] },
		"word":         func() { panic("word") },
	} {
		var err error
		recovered := fmt.Sprint(func() (r any) {
			defer func() { r = recover() }()
			err = Catch(func() error { bug(); return nil })
			return nil
		}())
		if recovered == "<nil>" || err != nil {
			t.Errorf("%s: panic %s, error %v", name, recovered, err)
		}
	}
}
