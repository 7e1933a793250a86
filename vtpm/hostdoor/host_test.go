// SPDX-License-Identifier: Apache-2.0

package hostdoor_test

import (
	"strings"
	"testing"

	"hwvtpm/vtpm/hostdoor"
)

func TestChooseMode(t *testing.T) {
	for _, tc := range []struct {
		choice, socket string
		emulator       bool
		want           hostdoor.Mode // empty: refused
		says           string
	}{
		{"", "", false, hostdoor.ModeOff, ""},
		{"", "", true, hostdoor.ModeOff, ""},
		{"", "s", false, hostdoor.ModeMap, ""},
		{"", "s", true, hostdoor.ModeEvidence, ""},
		{"map", "s", false, hostdoor.ModeMap, ""},
		{"map", "s", true, hostdoor.ModeMap, ""},
		{"evidence", "s", false, hostdoor.ModeEvidence, ""},
		{"off", "s", false, hostdoor.ModeOff, ""},
		{"off", "", true, hostdoor.ModeOff, ""},
		{"map", "", false, "", "vtpm-hostd"},
		{"evidence", "", true, "", "vtpm-hostd"},
		{"maybe", "s", false, "", "maybe"},
		{"maybe", "", false, "", "maybe"},
	} {
		got, err := hostdoor.ChooseMode(tc.choice, tc.socket, tc.emulator)
		if got != tc.want || (err != nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("ChooseMode(%q, %q, %t) = %q, %v; want %q, %q", tc.choice, tc.socket, tc.emulator, got, err, tc.want, tc.says)
		}
	}
}
