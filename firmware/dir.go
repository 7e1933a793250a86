// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// Names in a slot's directory.
const (
	lockName     = "lock"
	keyName      = "key"
	stateName    = "state"
	stateTmpName = "state.tmp"
	volatileName = "volatile"
	restoreName  = "restore" // made by an operator: one older state may be loaded
)

// stateDir is a slot's directory, locked for this process. It is the storage of
// a worker that has no card above it.
type stateDir struct {
	path string
	dir  *os.File // for fsync
	lock *os.File
	boot [16]byte
	buf  []byte // sealed state in the making
}

var _ storage = (*stateDir)(nil)

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
	d := &stateDir{path: path, dir: os.NewFile(uintptr(fd), path)}
	if d.boot, err = wire.BootID(); err == nil {
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

// readState reads the state file whole.
func (d *stateDir) readState() ([]byte, error) {
	f, err := d.open(stateName, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxImageSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return b, nil
}

// bootID implements storage.
func (d *stateDir) bootID() [16]byte { return d.boot }

// image implements storage.
func (d *stateDir) image() []byte { return d.buf[:0] }

// replace implements storage.
func (d *stateDir) replace(data []byte) error {
	d.buf = data
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

// goBack implements storage. The permission is a file: the directory has no
// administrator but who can write it.
func (d *stateDir) goBack() error {
	err := unix.Unlinkat(int(d.dir.Fd()), restoreName, 0)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("to go back on purpose: make a file %s, then restore again: %w", filepath.Join(d.path, restoreName), sealed.ErrRollback)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", restoreName, err)
	}
	return nil
}

// mapVolatile implements storage.
func (d *stateDir) mapVolatile() ([]byte, error) {
	f, err := d.open(volatileName, unix.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("volatile file is missing: %w", errCorrupt)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mapVolatile(int(f.Fd()))
}

// freshVolatile implements storage: by a new file, since nothing is known of
// the one that may be there.
func (d *stateDir) freshVolatile() ([]byte, error) {
	if err := unix.Unlinkat(int(d.dir.Fd()), volatileName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old volatile file: %w", err)
	}
	f, err := d.open(volatileName, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := allocate(int(f.Fd())); err != nil {
		return nil, fmt.Errorf("allocate %s: %w", f.Name(), err)
	}
	return mapVolatile(int(f.Fd()))
}

// close lets go of the lock and the directory.
func (d *stateDir) close() {
	if d.lock != nil {
		d.lock.Close()
	}
	d.dir.Close()
}
