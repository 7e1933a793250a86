// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"path/filepath"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest"
)

func TestConformance(t *testing.T) {
	coproctest.Run(t, func(t *testing.T) coproc.Device {
		c, err := Open(testConfig(t, filepath.Join(t.TempDir(), "tpm")))
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		return c
	})
}
