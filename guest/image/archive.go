// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/mkuimage/cpio"
)

// archive makes the initramfs: base with extra laid over it. The same records
// give the same bytes.
func archive(base *cpio.Archive, extra []cpio.Record) ([]byte, error) {
	replaced := make(map[string]bool)
	for _, r := range extra {
		replaced[r.Name] = true
	}
	a := cpio.InMemArchive()
	put := func(r cpio.Record) error {
		if _, ok := a.Get(r.Name); ok {
			return nil
		}
		return a.WriteRecord(cpio.MakeReproducible(r))
	}
	for _, name := range base.Order {
		if replaced[name] {
			continue
		}
		if err := put(base.Files[name]); err != nil {
			return nil, err
		}
	}
	for _, r := range extra {
		// The kernel creates no folders by itself.
		for _, dir := range parents(r.Name) {
			if err := put(cpio.Directory(dir, 0o755)); err != nil {
				return nil, err
			}
		}
		if err := put(r); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if err := cpio.CopyAndFinish(cpio.Newc.Writer(&b), a.Reader()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// parents lists the folders above name, outermost first.
func parents(name string) []string {
	var dirs []string
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// write brings out up to date.
func write(out string, base *cpio.Archive, extra []cpio.Record) (Result, error) {
	b, err := archive(base, extra)
	if err != nil {
		return Result{}, err
	}
	return store(out, b)
}

// store brings the file out up to date.
func store(out string, b []byte) (Result, error) {
	sum := sha256.Sum256(b)
	r := Result{Hash: hex.EncodeToString(sum[:])}
	if upToDate(out, r.Hash, int64(len(b))) {
		r.Cached = true
		return r, nil
	}
	// The hash of the old image goes first: it must never name the new one.
	if err := os.Remove(out + ".sum"); err != nil && !os.IsNotExist(err) {
		return Result{}, err
	}
	if err := replace(out, b); err != nil {
		return Result{}, err
	}
	return r, replace(out+".sum", []byte(r.Hash+"\n"))
}

func upToDate(out, hash string, size int64) bool {
	have, err := os.ReadFile(out + ".sum")
	if err != nil || strings.TrimSpace(string(have)) != hash {
		return false
	}
	info, err := os.Stat(out)
	return err == nil && info.Size() == size
}

// replace writes a file in one step.
func replace(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
