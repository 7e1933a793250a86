// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// withC are the programs that are built with cgo, as the Makefile does.
var withC = map[string]bool{"hwvtpm-engine": true}

// Set is some programs, by their names in the folder cmd. They are built at their
// first use, once for all tests of a package, into a folder that other users can
// read: workers run as users of their own. It may be used from any goroutine.
type Set struct {
	names []string

	mu   sync.Mutex // guards what follows
	done bool
	dir  string
	err  error
}

// New gives a set of programs, of which nothing is built yet.
func New(names ...string) *Set { return &Set{names: names} }

// Main runs a package's tests and removes what was built for them. The result is
// the exit code.
func (s *Set) Main(m *testing.M) int { return Main(m, s) }

// Main is Set.Main for several sets.
func Main(m *testing.M, sets ...*Set) int {
	for _, s := range sets {
		defer s.remove()
	}
	return m.Run()
}

func (s *Set) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// Dir gives the folder with the programs.
func (s *Set) Dir(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.done = true
		s.err = s.build()
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.dir
}

// Path gives the path of one program.
func (s *Set) Path(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(s.Dir(t), name)
}

func (s *Set) build() (err error) {
	if s.dir, err = os.MkdirTemp("", "hwvtpm-test"); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	return Build(s.dir, s.names...)
}

// Build builds programs into a folder.
func Build(dir string, names ...string) error {
	top, err := moduleTop()
	if err != nil {
		return err
	}
	noticeSources(filepath.Join(top, "firmware"))
	for _, name := range names {
		noticeSources(filepath.Join(top, "cmd", name))
		cgo := "0"
		if withC[name] {
			cgo = "1"
		}
		cmd := exec.Command("go", "build", "-o", dir+"/", "hwvtpm/cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// moduleTop finds the module's folder: a test runs in that of its package.
func moduleTop() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the test's folder")
		}
		dir = up
	}
}

// noticeSources looks at sources, so that go test does not take a result from
// its cache after they changed.
func noticeSources(dir string) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		_, err := os.Stat(path)
		return err
	})
}
