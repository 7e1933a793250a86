// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// enginePath is the real worker program, built once for all tests.
var enginePath string

// TestMain is also the fake worker's main, and that of a card that tests kill.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--worker" {
		fakeWorker()
		return
	}
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hwvtpm-card")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // workers have other user ids
	enginePath = filepath.Join(dir, "hwvtpm-engine")
	noticeSources("..")
	out, err := exec.Command("go", "build", "-o", enginePath, "hwvtpm/cmd/hwvtpm-engine").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build engine: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// noticeSources looks at the worker's sources, so that go test does not take a
// result from its cache after they changed.
func noticeSources(dir string) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		_, err := os.Stat(path)
		return err
	})
}
