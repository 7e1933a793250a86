// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"os"
	"testing"

	"hwvtpm/coproc/coproctest/programs"
)

// built is the card's programs.
var built = programs.New("coprocd", "hwvtpm-engine")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }
