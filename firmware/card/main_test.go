// SPDX-License-Identifier: Apache-2.0

package card

import (
	"os"
	"testing"

	"hwvtpm/coproc/coproctest/programs"
)

// built is the real worker program.
var built = programs.New("hwvtpm-engine")

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
	os.Exit(built.Main(m))
}
