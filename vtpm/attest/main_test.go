// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// enginePath is the program behind coproc/sim, built once for all tests.
var enginePath string

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hwvtpm-attest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	enginePath = filepath.Join(dir, "hwvtpm-engine")
	noticeSources("../../firmware")
	out, err := exec.Command("go", "build", "-o", enginePath, "hwvtpm/cmd/hwvtpm-engine").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build engine: %v\n%s", err, out)
		return 1
	}
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
