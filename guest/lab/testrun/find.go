// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// gated lists the packages with a test that mentions the environment variable.
func gated(tree fs.FS, gate string) ([]string, error) {
	found := map[string]bool{}
	err := testFiles(tree, func(pkg string, text []byte) {
		if bytes.Contains(text, []byte(`"`+gate+`"`)) {
			found[pkg] = true
		}
	})
	return slices.Sorted(maps.Keys(found)), err
}

// fuzzTarget is one fuzz function.
type fuzzTarget struct{ pkg, name string }

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz[A-Z0-9_]\w*)\(`)

// fuzzTargets lists all fuzz functions.
func fuzzTargets(tree fs.FS) ([]fuzzTarget, error) {
	var found []fuzzTarget
	err := testFiles(tree, func(pkg string, text []byte) {
		for _, m := range fuzzFunc.FindAllSubmatch(text, -1) {
			found = append(found, fuzzTarget{pkg, string(m[1])})
		}
	})
	return found, err
}

// testFiles visits the files that go test would look at for tests, in order of
// their names.
func testFiles(tree fs.FS, visit func(pkg string, text []byte)) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && skipDir(name, d.Name()) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err == nil {
			visit("./"+path.Dir(name), text)
		}
		return err
	})
}

// skipDir leaves out what the go command leaves out, and what is not ours.
func skipDir(name, base string) bool {
	return name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") ||
		base == "testdata" || name == "build" || name == "tools")
}
