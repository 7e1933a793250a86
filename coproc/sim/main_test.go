// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"os"
	"testing"

	"hwvtpm/coproc/coproctest/programs"
)

// built is the worker's program.
var built = programs.New(EngineName)

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }
