// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs is the directory of the card's programs, built once for all tests.
var programs string

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hwvtpm-pcie")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs = dir
	noticeSources("../../firmware")
	noticeSources("../../cmd/coprocd")
	out, err := exec.Command("go", "build", "-o", dir+"/", "hwvtpm/cmd/hwvtpm-engine", "hwvtpm/cmd/coprocd").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build card: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// noticeSources looks at the card's sources, so that go test does not take a
// result from its cache after they changed.
func noticeSources(dir string) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		_, err := os.Stat(path)
		return err
	})
}
