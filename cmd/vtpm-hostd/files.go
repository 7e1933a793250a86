// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// lock keeps a second process out of the state until its file is closed.
func lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another process has it open")
		}
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return f, nil
}

// maxSecret is more than any secret has.
const maxSecret = 64 << 10

// secret reads a file that nobody but its owner may read, without line ends at its
// end. No path is no secret.
func secret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read or write it (mode %04o): make it 0600, and consider it known", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret))
	return bytes.TrimRight(text, "\r\n"), err
}

// token gives what the token file has now; a file that is gone has none.
func (c *config) token() (string, error) {
	text, err := secret(c.tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// group gives the number of a group, by number or name; -1 for no group.
func group(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(g.Gid)
}
