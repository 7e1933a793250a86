// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names in the store.
const (
	lockName     = "lock"
	anchorName   = "anchor"
	tableName    = "table"
	identityName = "identity"
	slotsName    = "slots"
)

// openDir makes the directory if it is missing and checks that nobody else can
// change it, nor reach it through a link. Its parent must exist.
func openDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make store: %w", err)
	}
	return checkDir(path)
}

func checkDir(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open store", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("store %s belongs to uid %d, not to this user: %w", path, st.Uid, fs.ErrPermission)
	}
	if st.Mode&0o077 != 0 {
		return fmt.Errorf("store %s is open to others (mode %#o, want 0700): %w", path, st.Mode&0o777, fs.ErrPermission)
	}
	return nil
}

// takeLock locks the store for this process, until the file is closed.
func takeLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%s: %w (%s)", dir, ErrLocked, holder(f))
	} else if err != nil {
		err = fmt.Errorf("lock %s: %w", dir, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	// Only for messages: a failure costs nothing else.
	f.Truncate(0)
	f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	return f, nil
}

// holder says who has written its process id to the lock.
func holder(f *os.File) string {
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, 16))
	pid, err := strconv.Atoi(string(b))
	if err != nil || pid <= 0 {
		return "its process is not known"
	}
	return fmt.Sprintf("process %d", pid)
}

// isNew says whether a card may be made here: there is nothing at all but the
// lock, and what a file system has of its own.
func isNew(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("read store: %w", err)
	}
	var found []string
	for _, e := range entries {
		switch e.Name() {
		case lockName, "lost+found":
		case tableName:
			return false, nil
		default:
			found = append(found, e.Name())
		}
	}
	if len(found) > 0 {
		return false, fmt.Errorf("%s has no %q but holds %q: restore the store, or name an empty directory for a new card: %w", dir, tableName, found, ErrIncomplete)
	}
	return true, nil
}

// sweep removes what writes that were cut short have left. Nothing reads it. An
// error is of no matter.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".tmp") {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
