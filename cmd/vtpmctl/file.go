// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
)

// resultFile is a new file for a result that there may be no second of: it is
// opened before the work, so that a wrong path costs nothing.
type resultFile struct {
	path string
	f    *os.File // nil: not asked for, or kept
}

// newFile makes the file. An empty path is no file.
func newFile(path string) (*resultFile, error) {
	if path == "" {
		return &resultFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &resultFile{path: path, f: f}, nil
}

// keep writes the result.
func (r *resultFile) keep(b []byte) error {
	if r.f == nil {
		return nil
	}
	_, err := r.f.Write(b)
	err = errors.Join(err, r.f.Sync(), r.f.Close())
	r.f = nil
	return err
}

// drop removes the file if nothing was kept in it.
func (r *resultFile) drop() {
	if r.f != nil {
		r.f.Close()
		os.Remove(r.path)
	}
}
