// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"testing"
)

// Only a complete run writes the document.
func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want config
	}{
		"nothing": {nil, config{guest: true, out: "docs/benchmarks.md"}},
		"quick":   {[]string{"--quick"}, config{guest: true, quick: true}},
		"host":    {[]string{"--guest=false"}, config{}},
		"a part":  {[]string{"--only", "attestation"}, config{only: "attestation"}},
		"guests":  {[]string{"--only=guest", "--guest=false"}, config{only: "guest", guest: true}},
		"a file":  {[]string{"--only=nv", "--out", "x"}, config{only: "nv", out: "x"}},
	} {
		if got, err := parse(tc.args, io.Discard); err != nil || got != tc.want {
			t.Errorf("%s: parse(%q) = %+v, %v, want %+v", name, tc.args, got, err, tc.want)
		}
	}
	for _, args := range [][]string{{"--only", "all"}, {"--only", "NV"}, {"x"}, {"--fast"}} {
		if got, err := parse(args, io.Discard); err == nil {
			t.Errorf("parse(%q) = %+v", args, got)
		}
	}
}
