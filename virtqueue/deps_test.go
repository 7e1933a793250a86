// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The package knows rings and memory only: its code (tests aside) imports the
// standard library and golang.org/x/sys, and unsafe in *_unsafe.go files alone.
func TestImports(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range file.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			if !allowedImport(name) {
				t.Errorf("%s imports %s", path, name)
			}
			if name == "unsafe" && !strings.HasSuffix(path, "_unsafe.go") {
				t.Errorf("%s imports unsafe; only *_unsafe.go files may", path)
			}
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files looked at: %v", files, err)
	}
}

func allowedImport(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	standard := first != "hwvtpm" && !strings.Contains(first, ".")
	return standard || strings.HasPrefix(name, "hwvtpm/virtqueue") || strings.HasPrefix(name, "golang.org/x/sys/")
}
