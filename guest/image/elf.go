// SPDX-License-Identifier: Apache-2.0

package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// object is a program or shared library, with what ld.so(8) reads of it.
type object struct {
	host    string   // path of the file
	interp  string   // its loader; empty: a library, or static
	needed  []string // DT_NEEDED
	search  []string // DT_RUNPATH, of which only its own libraries are looked for
	rpath   []string // DT_RPATH, its own and, unless it has a DT_RUNPATH, of those that need it
	class   elf.Class
	machine elf.Machine
}

// errNotELF: the file is no program of this kind, such as a script.
var errNotELF = errors.New("not an ELF file")

const maxInterp = 4096 // PATH_MAX

// readObject reads an ELF file; by is what needs it, or nil.
func readObject(host string, by *object) (*object, error) {
	f, err := elf.Open(host)
	if _, bad := errors.AsType[*elf.FormatError](err); bad || errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", host, errNotELF)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o := &object{host: host, class: f.Class, machine: f.Machine}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", host, err)
	}
	o.needed = needed
	if o.interp, err = interpreter(f); err != nil {
		return nil, fmt.Errorf("%s: %w", host, err)
	}
	runpath, err := o.folders(f, elf.DT_RUNPATH)
	if err != nil || runpath != nil {
		o.search = runpath
		return o, err
	}
	if o.rpath, err = o.folders(f, elf.DT_RPATH); err == nil && by != nil {
		o.rpath = append(o.rpath, by.rpath...)
	}
	return o, err
}

// interpreter gives the path in PT_INTERP.
func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz > maxInterp {
			return "", errors.New("the name of the loader is too long")
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", fmt.Errorf("the name of the loader: %w", err)
		}
		name, _, _ := strings.Cut(string(b), "\x00")
		return name, nil
	}
	return "", nil
}

// folders reads a list of folders. $ORIGIN becomes a path of the host, which
// starts with the mark atHost, since no root applies to it any more.
func (o *object) folders(f *elf.File, tag elf.DynTag) ([]string, error) {
	lists, err := f.DynString(tag)
	if err != nil || len(lists) == 0 {
		return nil, err
	}
	origin := atHost + filepath.Dir(o.host)
	var folders []string
	for dir := range strings.SplitSeq(strings.Join(lists, ":"), ":") {
		for _, name := range []string{"${ORIGIN}", "$ORIGIN"} {
			if rest, ok := strings.CutPrefix(dir, name); ok {
				dir = origin + rest
			}
		}
		folders = append(folders, dir)
	}
	return folders, nil
}

// fits says whether a process of o can load lib.
func (o *object) fits(lib *object) bool {
	return o.class == lib.class && o.machine == lib.machine
}
