// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/mkuimage/cpio"
	"github.com/ulikunitz/xz"
)

const (
	maxModule    = 64 << 20 // unpacked
	symlinkPerms = 0o777
)

// files collects the records of an image. The first error sticks.
type files struct {
	byPath map[string]cpio.Record
	err    error
}

func (f *files) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *files) put(r cpio.Record) {
	if f.byPath == nil {
		f.byPath = make(map[string]cpio.Record)
	}
	f.byPath[r.Name] = r
}

func (f *files) contents(guest string, b []byte, mode os.FileMode) {
	f.put(cpio.StaticFile(relative(guest), string(b), uint64(mode.Perm())))
}

// relative is a path in the guest as an archive has it.
func relative(guest string) string {
	return strings.TrimPrefix(path.Clean("/"+guest), "/")
}

func (f *files) symlink(guest, target string) {
	r := cpio.Symlink(guest, target)
	r.Mode = cpio.S_IFLNK | symlinkPerms
	f.put(r)
}

// add copies a file of the host. A symbolic link is followed.
func (f *files) add(guest, host string) {
	info, err := os.Stat(host)
	if err != nil {
		f.fail(err)
		return
	}
	b, err := os.ReadFile(host)
	if err != nil {
		f.fail(err)
		return
	}
	f.contents(guest, b, info.Mode())
}

// modules adds the modules and the list from which the agent loads them.
func (f *files) modules(paths []string) {
	var list strings.Builder
	for _, host := range paths {
		b, err := readModule(host)
		if err != nil {
			f.fail(err)
			return
		}
		guest := path.Join(moduleDir, strings.TrimSuffix(filepath.Base(host), ".xz"))
		f.contents(guest, b, 0o644)
		fmt.Fprintf(&list, "/%s\n", guest)
	}
	f.contents(moduleList, []byte(list.String()), 0o644)
}

// readModule unpacks a module if need be: not every kernel does it itself.
func readModule(host string) ([]byte, error) {
	b, err := os.ReadFile(host)
	if err != nil || filepath.Ext(host) != ".xz" {
		return b, err
	}
	r, err := xz.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", host, err)
	}
	if b, err = io.ReadAll(io.LimitReader(r, maxModule)); err != nil {
		return nil, fmt.Errorf("%s: %w", host, err)
	}
	return b, nil
}

// sorted returns the records in the order of their names.
func (f *files) sorted() ([]cpio.Record, error) {
	if f.err != nil {
		return nil, f.err
	}
	all := make([]cpio.Record, 0, len(f.byPath))
	for _, r := range f.byPath {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
