// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrUnsure: a file was written, and is in place, but may not outlive a power cut. Who
// depends on either content has to write it again.
var ErrUnsure = errors.New("written but not known to be durable")

// Create writes a new file. If there is anything of that name, it is left alone and the
// error is fs.ErrExist. The file's mode is mode, whatever the umask is.
func Create(path string, data []byte, mode fs.FileMode) error {
	return writer{}.write(path, data, mode, putNew)
}

// Replace makes data the content of a file, which need not exist. After ErrUnsure either
// content may be found after a power cut; after any other error the old one is
// untouched. The file's mode is mode, whatever it was and the umask is.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return writer{}.write(path, data, mode, os.Rename)
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// putNew gives a file its name, unless that is taken.
func putNew(tmp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not by this file system
		if err = unix.Link(tmp, path); err == nil {
			return unix.Unlink(tmp)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return nil
}

// writer writes files.
type writer struct {
	// step is called at each point of a write, so that tests can end the world
	// there. It is nil otherwise.
	step func(point string) error
}

func (w writer) write(path string, data []byte, mode fs.FileMode, put func(tmp, path string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // O_EXCL, 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = w.at("made")
	if err == nil {
		_, err = tmp.Write(data)
	}
	if err = errors.Join(err, w.at("written")); err == nil {
		err = errors.Join(tmp.Chmod(mode), tmp.Sync())
	}
	err = errors.Join(err, tmp.Close(), w.at("synced"))
	if err == nil {
		err = put(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name()) // best effort: nothing reads it
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := w.at("placed"); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w: %w", path, ErrUnsure, err)
	}
	return w.at("durable")
}

func (w writer) at(point string) error {
	if w.step == nil {
		return nil
	}
	return w.step(point)
}
