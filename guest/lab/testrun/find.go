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

// gated lists the packages with a test that mentions the environment variable, or
// that imports a package which does so on behalf of tests.
func gated(tree fs.FS, gate string) ([]string, error) {
	keys := [][]byte{[]byte(`"` + gate + `"`)}
	// Such packages may import each other: look until there are no more.
	keepers := map[string]bool{}
	for before := -1; before < len(keepers); {
		before = len(keepers)
		err := goFiles(tree, func(pkg string, test bool, text []byte) {
			if !test && !keepers[pkg] && isTestPackage(pkg) && mentions(text, keys) {
				keepers[pkg] = true
				keys = append(keys, []byte(`"`+path.Join(module, pkg)+`"`))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	found := map[string]bool{}
	err := testFiles(tree, func(pkg string, text []byte) {
		if mentions(text, keys) {
			found[pkg] = true
		}
	})
	return slices.Sorted(maps.Keys(found)), err
}

const module = "hwvtpm"

// isTestPackage says whether a package exists for tests: controltest and such.
func isTestPackage(pkg string) bool { return strings.HasSuffix(pkg, "test") }

func mentions(text []byte, keys [][]byte) bool {
	return slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Contains(text, key) })
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
	return goFiles(tree, func(pkg string, test bool, text []byte) {
		if test {
			visit(pkg, text)
		}
	})
}

// goFiles visits all of the module's own Go files in order of their names.
func goFiles(tree fs.FS, visit func(pkg string, test bool, text []byte)) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && skipDir(name, d.Name()) {
			return fs.SkipDir
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err == nil {
			visit("./"+path.Dir(name), strings.HasSuffix(name, "_test.go"), text)
		}
		return err
	})
}

// skipDir leaves out what the go command leaves out, and what is not ours.
func skipDir(name, base string) bool {
	return name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") ||
		base == "testdata" || name == "build" || name == "tools")
}
