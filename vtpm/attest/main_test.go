// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"os"
	"testing"

	"hwvtpm/coproc/coproctest/programs"
)

// built is the program behind coproc/sim. Fuzzing has no use for it.
var built = programs.New("hwvtpm-engine")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }
