// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"os"
	"testing"

	"hwvtpm/coproc/coproctest/programs"
)

// built is the daemon and its engine.
var built = programs.New("coprocd", "hwvtpm-engine")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }
