// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"errors"
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
	err = os.Chmod(dir, 0o755) // workers have users of their own
	for program, cgo := range map[string]string{"coprocd": "0", "hwvtpm-engine": "1"} {
		err = errors.Join(err, build(program, cgo))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds a program as it is meant to be built.
func build(program, cgo string) error {
	cmd := exec.Command("go", "build", "-o", programs+"/", "hwvtpm/cmd/"+program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, out)
	}
	return nil
}

// noticeSources looks at the card's sources, so that go test does not take a
// result from its cache after they changed.
func noticeSources(dir string) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		_, err := os.Stat(path)
		return err
	})
}
