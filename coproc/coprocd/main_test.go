// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// programs builds the daemon and its engine, once for all tests.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "hwvtpm-coprocd"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // workers run as users of their own
		return dir, err
	}
	noticeSources("../../firmware")
	noticeSources("../../cmd/coprocd")
	for name, cgo := range map[string]string{"coprocd": "0", "hwvtpm-engine": "1"} {
		cmd := exec.Command("go", "build", "-o", dir+"/", "hwvtpm/cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := programs(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// noticeSources looks at the programs' sources, so that go test does not take a
// result from its cache after they changed.
func noticeSources(dir string) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		_, err := os.Stat(path)
		return err
	})
}

// built gives the folder of the programs.
func built(t testing.TB) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
