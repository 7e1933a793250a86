// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/ldd"
	"github.com/ulikunitz/xz"
)

// Where Debian's tpm2-tools and tpm2-tss are. tpm2_getrandom and its like are
// symbolic links to tpm2. The TCTI is opened at run time, so no program names
// it as a library that it needs.
const (
	tpm2Program  = "/usr/bin/tpm2"
	tpm2Links    = "/usr/bin/tpm2_*"
	tctiPattern  = "/usr/lib/*/libtss2-tcti-device.so.0"
	maxModule    = 64 << 20 // unpacked
	executable   = 0o755
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
	guest = strings.TrimPrefix(path.Clean("/"+guest), "/")
	f.put(cpio.StaticFile(guest, string(b), uint64(mode.Perm())))
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

// program copies a file and, if it is a dynamically linked program or library,
// the libraries that it needs, to the places where the host has them.
func (f *files) program(guest, host string) {
	f.add(guest, host)
	if f.err != nil || !isELF(host) {
		return
	}
	libraries, err := ldd.List(host)
	if err != nil {
		f.fail(fmt.Errorf("libraries of %s: %w", host, err))
		return
	}
	for _, lib := range libraries {
		f.add(lib, lib)
	}
}

func isELF(host string) bool {
	e, err := elf.Open(host)
	if err != nil {
		return false
	}
	e.Close()
	return true
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

func (f *files) tpmTools() {
	tcti, err := filepath.Glob(tctiPattern)
	if err != nil || len(tcti) == 0 {
		f.fail(errors.New("libtss2-tcti-device is not installed (it comes with tpm2-tools)"))
		return
	}
	f.program(tpm2Program, tpm2Program)
	for _, lib := range tcti {
		f.program(lib, lib)
	}
	links, err := filepath.Glob(tpm2Links)
	if err != nil {
		f.fail(err)
		return
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == "tpm2" {
			f.symlink(strings.TrimPrefix(link, "/"), target)
		}
	}
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
