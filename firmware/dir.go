// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a slot's directory.
const (
	lockName     = "lock"
	stateName    = "state"
	stateTmpName = "state.tmp"
	volatileName = "volatile"
)

// stateDir is a slot's directory, locked for this process.
type stateDir struct {
	path string
	dir  *os.File // for fsync
	lock *os.File
	boot [16]byte // names the machine's boot, with which mapped memory ends

	// replace makes data the content of a file, durably. Tests put a
	// failing one here.
	replace func(d *stateDir, data []byte) error
}

// openDir makes the directory if it is missing, and locks it. The directory
// must belong to this user and give nobody else any right.
func openDir(path string) (*stateDir, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open state directory %s: %w", path, err)
	}
	d := &stateDir{path: path, dir: os.NewFile(uintptr(fd), path), replace: replaceState}
	if d.boot, err = bootID(); err == nil {
		err = d.check()
	}
	if err != nil {
		d.close()
		return nil, err
	}
	if err := d.takeLock(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// bootID reads the kernel's name of this boot, a UUID.
func bootID() (id [16]byte, err error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("read boot id: %w", err)
	}
	n, err := hex.Decode(id[:], bytes.ReplaceAll(b[:min(len(b), 36)], []byte("-"), nil))
	if err != nil || n != len(id) {
		return id, fmt.Errorf("boot id %q is no UUID", b)
	}
	return id, nil
}

// check refuses a directory that others could tamper with.
func (d *stateDir) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.dir.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", d.path, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("state directory %s belongs to uid %d, not to this user: %w", d.path, st.Uid, fs.ErrPermission)
	}
	if st.Mode&0o077 != 0 {
		return fmt.Errorf("state directory %s is open to others (mode %#o, want 0700): %w", d.path, st.Mode&0o777, fs.ErrPermission)
	}
	return nil
}

// lockWait is how long to wait for the lock: the worker of a driver that died
// just now needs a moment to notice, and a new driver must not fail over it.
const lockWait = time.Second

func (d *stateDir) takeLock() error {
	f, err := d.open(lockName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return err
	}
	d.lock = f
	deadline := time.Now().Add(lockWait)
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w", d.path, errInUse)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", d.path, err)
	}
	return nil
}

// open opens a file of the directory, never through a symbolic link, and
// refuses what is not a regular file.
func (d *stateDir) open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(d.dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.path, name), Err: err}
	}
	// O_NONBLOCK was only there so that a FIFO cannot hang the open; without
	// it os.File leaves the runtime's poller alone.
	unix.SetNonblock(fd, false)
	f := os.NewFile(uintptr(fd), filepath.Join(d.path, name))
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", f.Name(), errCorrupt)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// mark notes in the lock file which TPM lives here, so that a state file that
// was lost, or exchanged for another TPM's, is noticed.
func (d *stateDir) mark(id [16]byte) error {
	_, err := d.lock.WriteAt(hex.AppendEncode(nil, id[:]), 0)
	if err == nil {
		err = d.lock.Sync()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.lock.Name(), err)
	}
	return nil
}

// checkMark compares the mark with the state file's slot id. A creation that
// was cut short behind the state file has left no mark; it is made up for.
func (d *stateDir) checkMark(id [16]byte) error {
	mark, err := d.readMark()
	switch {
	case err != nil:
		return err
	case len(mark) == 0:
		return d.mark(id)
	case !bytes.Equal(mark, hex.AppendEncode(nil, id[:])):
		return fmt.Errorf("the state file is of TPM %x, but the directory belongs to %q: restore the right state; or, if the exchange is meant, remove %q and %q: %w",
			id, mark, lockName, volatileName, errForeign)
	}
	return nil
}

func (d *stateDir) readMark() ([]byte, error) {
	b, err := io.ReadAll(io.NewSectionReader(d.lock, 0, 64))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.lock.Name(), err)
	}
	return b, nil
}

// isNew tells whether a TPM may be made here: there is nothing but what a
// creation that was cut short leaves. Without a state file, anything else
// means that a state was lost, which is an error.
func (d *stateDir) isNew() (bool, error) {
	entries, err := d.dir.ReadDir(-1)
	if err != nil {
		return false, fmt.Errorf("read state directory: %w", err)
	}
	mark, err := d.readMark()
	if err != nil {
		return false, err
	}
	stray := ""
	for _, e := range entries {
		switch e.Name() {
		case stateName:
			return false, nil
		case lockName, stateTmpName:
		default:
			stray = e.Name()
		}
	}
	if len(mark) > 0 && stray == "" {
		stray = lockName
	}
	if stray != "" {
		return false, fmt.Errorf("%s has no %q file but holds %q: restore the state from a backup, or name an empty directory to make a new TPM: %w",
			d.path, stateName, stray, errCorrupt)
	}
	return true, nil
}

// readState reads the state file whole.
func (d *stateDir) readState() ([]byte, error) {
	f, err := d.open(stateName, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStateSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return b, nil
}

// errUnsure marks a failure after which the new state may or may not be the
// one on disk.
var errUnsure = errors.New("new state is in place but not known durable")

// replaceState makes data the state file: all of it or none, durable on
// return. An error that is not errUnsure means the old state is untouched.
func replaceState(d *stateDir, data []byte) error {
	f, err := d.open(stateTmpName, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	dirfd := int(d.dir.Fd())
	if err == nil {
		err = unix.Renameat(dirfd, stateTmpName, dirfd, stateName)
	}
	if err != nil {
		unix.Unlinkat(dirfd, stateTmpName, 0) // best effort: it is ignored at the next open
		return fmt.Errorf("write %s: %w", filepath.Join(d.path, stateName), err)
	}
	if err := d.dir.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errUnsure, err)
	}
	return nil
}

// close lets go of the lock and the directory.
func (d *stateDir) close() {
	if d.lock != nil {
		d.lock.Close()
	}
	d.dir.Close()
}
