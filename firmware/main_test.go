// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// buildDir is where buildEngine builds, to be removed after all tests.
var buildDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// buildEngine builds the worker's program, for tests that kill it.
var buildEngine = sync.OnceValues(func() (path string, err error) {
	if buildDir, err = os.MkdirTemp("", "hwvtpm-firmware"); err != nil {
		return "", err
	}
	path = filepath.Join(buildDir, "hwvtpm-engine")
	if out, err := exec.Command("go", "build", "-o", path, "hwvtpm/cmd/hwvtpm-engine").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build engine: %w\n%s", err, out)
	}
	return path, nil
})
