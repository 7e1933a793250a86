// SPDX-License-Identifier: Apache-2.0

package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Programs adds to programs what they need to run in a guest: their loaders and
// shared libraries. It maps, as Config.Files does, paths in the guest to paths on
// the host. Files that are no ELF files are taken as they are.
//
// Libraries are found by ld.so(8)'s rules (DT_RPATH, DT_RUNPATH with $ORIGIN, the
// folders of /etc/ld.so.conf, the system's own) with each of roots, in order, in
// the place of /: an unpacked Debian, or "/" for the machine's libraries. They get
// to where the guest's loader looks without a cache. What a program opens later
// (dlopen(3)) no file says: name it among programs. LD_LIBRARY_PATH, ld.so.cache
// and folders for better processors (glibc-hwcaps) are not looked at.
//
// Two libraries that would get the same place are an error, and so is one that
// is not found (fs.ErrNotExist).
func Programs(roots []string, programs map[string]string) (map[string]string, error) {
	all, err := withLibraries(roots, programs)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return all, nil
}

func withLibraries(roots []string, programs map[string]string) (map[string]string, error) {
	s, err := newSearch(roots)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(programs)
	for _, guest := range slices.Sorted(maps.Keys(programs)) {
		libraries, err := s.closure(programs[guest])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", programs[guest], err)
		}
		for place, lib := range libraries {
			if other, ok := all[place]; ok && other != lib {
				return nil, fmt.Errorf("both %s and %s are needed as %s", other, lib, place)
			}
			all[place] = lib
		}
	}
	return all, nil
}

// atHost marks a folder that is in no root.
const atHost = "host:"

// multiarch names Debian's folder for libraries.
var multiarch = map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}

// systemFolders are where the loader looks by itself, the first one first.
func systemFolders(m elf.Machine) []string {
	var list []string
	if name := multiarch[m]; name != "" {
		list = append(list, "/lib/"+name, "/usr/lib/"+name)
	}
	return append(list, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}

// search looks for libraries in some roots.
type search struct {
	roots      []string // without symbolic links
	configured []string // folders that /etc/ld.so.conf names
}

func newSearch(roots []string) (*search, error) {
	var s search
	for _, root := range roots {
		real, err := filepath.EvalSymlinks(root)
		if err != nil {
			return nil, err
		}
		s.roots = append(s.roots, real)
		s.configured = append(s.configured, readConfig(real, "/etc/ld.so.conf", 0)...)
	}
	return &s, nil
}

// closure gives all that a program loads when it starts, by the places in the
// guest.
func (s *search) closure(program string) (map[string]string, error) {
	first, err := readObject(program, nil)
	if errors.Is(err, errNotELF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, seen := map[string]string{}, map[string]bool{}
	if first.interp != "" {
		loader, err := s.inRoots(first.interp)
		if err != nil {
			return nil, err
		}
		found[first.interp] = loader
		seen[path.Base(first.interp)] = true // libc names it as a library, too
	}
	for queue := []*object{first}; len(queue) > 0; queue = queue[1:] {
		for _, name := range queue[0].needed {
			if seen[name] {
				continue
			}
			seen[name] = true
			lib, place, err := s.library(queue[0], name)
			if err != nil {
				return nil, err
			}
			found[place] = lib.host
			queue = append(queue, lib)
		}
	}
	return found, nil
}

// library finds a library that o needs, and its place in the guest: where it is,
// if the loader looks there, or else where it looks first.
func (s *search) library(o *object, name string) (*object, string, error) {
	if strings.Contains(name, "/") {
		host, err := s.inRoots(name)
		if err != nil {
			return nil, "", err
		}
		lib, err := readObject(host, o)
		return lib, path.Clean("/" + name), err
	}
	system := systemFolders(o.machine)
	for _, dir := range slices.Concat(o.rpath, o.search, s.configured, system) {
		for _, host := range s.candidates(dir, name) {
			lib, err := readObject(host, o)
			if err != nil || !o.fits(lib) {
				continue // as ld.so(8) does
			}
			if !slices.Contains(system, dir) {
				dir = system[0]
			}
			return lib, path.Join(dir, name), nil
		}
	}
	return nil, "", fmt.Errorf("library %s, which %s needs: %w", name, o.host, fs.ErrNotExist)
}

// candidates are the files of this name in a folder of any root.
func (s *search) candidates(dir, name string) []string {
	if dir, ok := strings.CutPrefix(dir, atHost); ok {
		return []string{filepath.Join(dir, name)}
	}
	var hosts []string
	for _, root := range s.roots {
		if host, err := inside(root, path.Join(dir, name)); err == nil {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// inRoots finds a file by its whole path.
func (s *search) inRoots(name string) (string, error) {
	if hosts := s.candidates(path.Dir(name), path.Base(name)); len(hosts) > 0 {
		return hosts[0], nil
	}
	return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// maxIncludes bounds files that include each other.
const maxIncludes = 4

// readConfig reads a file as ldconfig(8) does: a folder per line, or include with
// a pattern. What can't be read says nothing.
func readConfig(root, name string, depth int) []string {
	host, err := inside(root, name)
	if err != nil || depth > maxIncludes {
		return nil
	}
	text, _ := os.ReadFile(host)
	var dirs []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 1:
			dirs = append(dirs, fields[0])
		case len(fields) == 2 && fields[0] == "include":
			pattern := fields[1]
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(name), pattern)
			}
			files, _ := filepath.Glob(filepath.Join(root, pattern))
			for _, f := range files {
				dirs = append(dirs, readConfig(root, strings.TrimPrefix(f, strings.TrimSuffix(root, "/")), depth+1)...)
			}
		}
	}
	return dirs
}
