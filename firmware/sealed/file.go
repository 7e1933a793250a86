// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of any file here.
const maxFile = 8 << 20

// File is a small file that is replaced as a whole. It holds what only its owner
// may see: others' files, links and open modes are refused.
type File struct {
	path string

	// step is called before and after each step of a write, so that tests can
	// end the world there. It is nil otherwise.
	step func(point string) error
}

// NewFile names a file; it need not exist.
func NewFile(path string) *File { return &File{path: path} }

// Path is the file's name.
func (f *File) Path() string { return f.path }

// Read reads the file whole. If there is none, the error is fs.ErrNotExist.
func (f *File) Read() ([]byte, error) {
	// O_NONBLOCK: a FIFO must not hang the open.
	fd, err := unix.Open(f.path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.path, Err: err}
	}
	file := os.NewFile(uintptr(fd), f.path)
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file: %w", f.path, fs.ErrInvalid)
	case int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to uid %d, not to this user: %w", f.path, st.Uid, fs.ErrPermission)
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("%s is open to others (mode %#o, want 0600): %w", f.path, st.Mode&0o777, fs.ErrPermission)
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes: %w", maxFile, ErrDamaged)
	}
	if err != nil {
		clear(b)
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	return b, nil
}

// Create writes a new file, durably: all of it or none. If there is one, it is
// left alone and the error is fs.ErrExist.
func (f *File) Create(data []byte) error {
	// Link, unlike rename, does not replace.
	return f.write(data, func(tmp string) error {
		err := unix.Link(tmp, f.path)
		if err != nil {
			return &fs.PathError{Op: "create", Path: f.path, Err: err}
		}
		return unix.Unlink(tmp)
	})
}

// Replace makes data the content of the file, durably: all of it or none. After
// ErrUnsure either content may be found after a power cut; after any other error
// the old one is untouched.
func (f *File) Replace(data []byte) error {
	return f.write(data, func(tmp string) error { return os.Rename(tmp, f.path) })
}

func (f *File) write(data []byte, place func(tmp string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(f.path), filepath.Base(f.path)+".*.tmp") // O_EXCL, 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	err = f.at("made")
	if err == nil {
		_, err = tmp.Write(data)
	}
	if err = errors.Join(err, f.at("written")); err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close(), f.at("synced"))
	if err == nil {
		err = place(tmp.Name())
	}
	if err != nil {
		os.Remove(tmp.Name()) // best effort: nothing reads it
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if err := f.at("placed"); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("write %s: %w: %w", f.path, ErrUnsure, err)
	}
	return f.at("durable")
}

func (f *File) at(point string) error {
	if f.step == nil {
		return nil
	}
	return f.step(point)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
