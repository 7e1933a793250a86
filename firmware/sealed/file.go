// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/durable"
)

// maxFile bounds what is read of any file here.
const maxFile = 8 << 20

// File is a small file that is replaced as a whole. It holds what only its owner
// may see: others' files, links and open modes are refused.
type File struct{ path string }

// NewFile names a file; it need not exist.
func NewFile(path string) *File { return &File{path} }

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
func (f *File) Create(data []byte) error { return durable.Create(f.path, data, 0o600) }

// Replace makes data the content of the file, durably: all of it or none. After
// ErrUnsure either content may be found after a power cut; after any other error
// the old one is untouched.
func (f *File) Replace(data []byte) error { return durable.Replace(f.path, data, 0o600) }
