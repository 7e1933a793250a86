// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"os"
	"testing"

	"hwvtpm/coproc/coproctest/programs"
)

// built is the worker's program, for tests that kill it.
var built = programs.New("hwvtpm-engine")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }
