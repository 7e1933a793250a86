// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/firmware/sealed"
)

var errFault = errors.New("disk is broken")

// breakFile makes writes of a file fail, before or after they happen.
func breakFile(s *Store, name string, err error) {
	s.replace = func(path string, data []byte) error {
		if filepath.Base(path) != name {
			return replaceFile(path, data)
		}
		if errors.Is(err, sealed.ErrUnsure) {
			if err := replaceFile(path, data); err != nil {
				return err
			}
		}
		return err
	}
}

func mend(s *Store) { s.replace = replaceFile }

func TestTableNotWritten(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	a := create(t, s, 1)
	breakFile(s, tableName, errFault)
	r := record(2)
	_, blob := seal(t, s, r.ID, 1, "x")
	if _, err := s.Create(r, blob, nil, MaxSlots); !errors.Is(err, errFault) {
		t.Errorf("Create: %v", err)
	}
	if err := s.Remove(a.ID); !errors.Is(err, errFault) {
		t.Errorf("Remove: %v", err)
	}
	mend(s)
	if len(s.Records()) != 1 {
		t.Errorf("%d slots", len(s.Records()))
	}
	create(t, s, 2) // it goes on
	must(t, s.Close())
	s = openStore(t, cfg)
	if len(s.Records()) != 2 || len(s.Strays()) != 0 {
		t.Errorf("%d slots, strays %v", len(s.Records()), s.Strays())
	}
}

func TestTableUnsure(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	a := create(t, s, 1)
	breakFile(s, tableName, sealed.ErrUnsure)
	if err := s.Remove(a.ID); !errors.Is(err, ErrFailed) {
		t.Errorf("Remove: %v", err)
	}
	mend(s)
	r := record(2)
	_, blob := seal(t, s, r.ID, 1, "x")
	if _, err := s.Create(r, blob, nil, MaxSlots); !errors.Is(err, ErrFailed) {
		t.Errorf("Create after a failure: %v", err)
	}
	save(t, s, a.ID, 2) // slots that are open go on
	must(t, s.Close())
	s = openStore(t, cfg)
	if n := len(s.Records()); n != 0 {
		t.Errorf("%d slots: the table on disk is not read", n)
	}
	if len(s.Strays()) != 1 {
		t.Errorf("strays %v: the slot's files are gone", s.Strays())
	}
}

func TestStateNotWritten(t *testing.T) {
	s := openStore(t, newConfig(t))
	a := create(t, s, 1)
	breakFile(s, stateName, errFault)
	l, blob := seal(t, s, a.ID, 2, "x")
	if err := s.SaveState(l, blob); !errors.Is(err, errFault) || errors.Is(err, sealed.ErrUnsure) {
		t.Errorf("SaveState: %v", err)
	}
	mend(s)
	must(t, check(s, a.ID))
	save(t, s, a.ID, 3)
}

// A state that may not be durable is written again before the anchor demands it.
func TestStateUnsure(t *testing.T) {
	s := openStore(t, newConfig(t))
	a := create(t, s, 1)
	breakFile(s, stateName, sealed.ErrUnsure)
	l, blob := seal(t, s, a.ID, 2, "x")
	if err := s.SaveState(l, blob); !errors.Is(err, sealed.ErrUnsure) {
		t.Errorf("SaveState: %v", err)
	}
	if _, generation := s.Newest(a.ID); generation != 1 {
		t.Errorf("generation %d is noted", generation)
	}
	if err := check(s, a.ID); !errors.Is(err, sealed.ErrUnsure) {
		t.Errorf("read while the disk is broken: %v", err)
	}
	mend(s)
	writes := 0
	s.replace = func(path string, data []byte) error {
		writes++
		return replaceFile(path, data)
	}
	must(t, check(s, a.ID))
	must(t, check(s, a.ID))
	if writes != 1 {
		t.Errorf("written %d times, want once", writes)
	}
}

func TestSaveOutOfOrderIsNotAcknowledged(t *testing.T) {
	s := openStore(t, newConfig(t))
	a := create(t, s, 1)
	save(t, s, a.ID, 5)
	l, blob := seal(t, s, a.ID, 4, "x")
	if err := s.SaveState(l, blob); !errors.Is(err, sealed.ErrUnsure) {
		t.Errorf("SaveState of an old generation: %v", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("mounts file systems: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
}

// onSmallDisk is a store on a file system of its own, which mount(2) limits.
func onSmallDisk(t *testing.T) Config {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0700"))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return Config{Dir: filepath.Join(dir, "card"), Protection: FileProtection("")}
}

func TestDiskFull(t *testing.T) {
	cfg := onSmallDisk(t)
	s := openStore(t, cfg)
	a := create(t, s, 1)
	filler := filepath.Join(filepath.Dir(cfg.Dir), "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	l, blob := seal(t, s, a.ID, 2, strings.Repeat("x", 8192))
	if err := s.SaveState(l, blob); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("SaveState: %v", err)
	}
	r := record(2)
	_, first := seal(t, s, r.ID, 1, strings.Repeat("x", 8192))
	if _, err := s.Create(r, first, nil, MaxSlots); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Create: %v", err)
	}
	must(t, os.Remove(filler))
	must(t, check(s, a.ID))
	save(t, s, a.ID, 3)
	create(t, s, 2)
	must(t, s.Close())
	if s := openStore(t, cfg); len(s.Records()) != 2 || len(s.Strays()) != 0 {
		t.Errorf("%d slots, strays %v", len(s.Records()), s.Strays())
	}
}

func TestReadOnly(t *testing.T) {
	cfg := onSmallDisk(t)
	s := openStore(t, cfg)
	a := create(t, s, 1)
	parent := filepath.Dir(cfg.Dir)
	// Nothing is open for writing but the lock, which is closed meanwhile.
	must(t, s.Close())
	must(t, unix.Mount("", parent, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, err := Open(cfg); !errors.Is(err, unix.EROFS) {
		t.Errorf("Open: %v", err)
	}
	must(t, unix.Mount("", parent, "", unix.MS_REMOUNT, ""))
	must(t, check(openStore(t, cfg), a.ID))
}

// The volatile file stays locked for as long as a worker has it, as a descriptor
// or as a mapping, whatever becomes of the card: no second one gets it.
func TestVolatileHasOneWorker(t *testing.T) {
	s := openStore(t, newConfig(t))
	r := create(t, s, 1)
	f, err := s.Volatile(r.ID)
	must(t, err)
	must(t, f.Truncate(4096))
	worker, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) // the same open file, as a worker gets it
	must(t, err)
	must(t, f.Close())
	if f, err := s.Volatile(r.ID); !errors.Is(err, ErrHeld) {
		t.Errorf("with a worker that lives: %v, %v, want ErrHeld", f, err)
	}
	mem, err := unix.Mmap(worker, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, unix.Close(worker))
	if f, err := s.Volatile(r.ID); !errors.Is(err, ErrHeld) {
		t.Errorf("with a worker's mapping: %v, %v, want ErrHeld", f, err)
	}
	time.AfterFunc(50*time.Millisecond, func() { unix.Munmap(mem) })
	f, err = s.Volatile(r.ID)
	must(t, err)
	must(t, f.Close())
}
