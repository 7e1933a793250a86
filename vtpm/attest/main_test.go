// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// buildDir is removed when all tests have ended.
var buildDir string

// engine builds the program behind coproc/sim, once. Fuzzing has no use for it.
var engine = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "hwvtpm-engine")
	noticeSources("../../firmware")
	out, err := exec.Command("go", "build", "-o", path, "hwvtpm/cmd/hwvtpm-engine").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build engine: %w\n%s", err, out)
	}
	return path, err
})

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "hwvtpm-attest"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	return m.Run()
}

// noticeSources looks at the engine's sources, so that go test does not take a
// result from its cache after they changed.
func noticeSources(dir string) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		_, err := os.Stat(path)
		return err
	})
}
