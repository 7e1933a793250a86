// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The table of attacks in docs/attestation.md names cases that there are, and what
// fails by them.
func TestDocumentedAttacks(t *testing.T) {
	text, err := os.ReadFile("../../docs/attestation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Attacks\n")
	section, _, _ = strings.Cut(section, "\n## ")
	known := map[string][]Name{}
	for _, at := range slices.Concat(chainAttacks, bindingAttacks, quoteAttacks, logAttacks, policyAttacks) {
		known[at.name] = at.want
	}
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		if len(cells) != 3 || strings.Contains(cells[2], "`") || strings.Contains(cells[2], "---") {
			continue
		}
		fails, name := strings.Trim(cells[1], " `"), strings.TrimSpace(cells[2])
		if want, is := known[name]; is && slices.Contains(want, Name(fails)) {
			rows++
		} else if name != "case" {
			t.Errorf("the table has %q, which fails %q; TestAttacks has it: %v, failing %v", name, fails, is, want)
		}
	}
	if rows < 30 {
		t.Errorf("%d rows were read", rows)
	}
}
