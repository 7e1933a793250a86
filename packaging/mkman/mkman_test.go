// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const help = `Usage: tool --store DIR
       tool raw

Does a thing. It's "odd":
.no request here, and no \escape.

One of:
  --store DIR          where it is, and
                       more of that
    --mode LIST        of the store
  --a-flag-that-is-too-long X|Y
                       its text
Other:
  --version, --help

Exit codes: 0 done;
1 failure.
`

func TestParse(t *testing.T) {
	want := []block{
		{heading: "Usage", text: []string{"tool --store DIR", "       tool raw"}},
		{text: []string{`Does a thing. It's "odd":`, `.no request here, and no \escape.`}},
		{heading: "One of", items: []item{
			{2, "--store DIR", []string{"where it is, and", "more of that"}},
			{4, "--mode LIST", []string{"of the store"}},
			{2, "--a-flag-that-is-too-long X|Y", []string{"its text"}},
		}},
		{heading: "Other", items: []item{{2, "--version, --help", nil}}},
		{heading: "Exit codes", text: []string{"0 done;", "1 failure."}},
	}
	if diff := cmp.Diff(want, parse(help), cmp.AllowUnexported(block{}, item{})); diff != "" {
		t.Errorf("parse (-want +got):\n%s", diff)
	}
}

func TestRender(t *testing.T) {
	got := page{program: "tool", section: 1, title: "do a thing", seeAlso: "other(1)"}.render([]string{help})
	for _, want := range []string{
		".TH TOOL 1 ", ".SH NAME\ntool \\- do a thing\n", ".SH SYNOPSIS\n.nf\n\\fBtool \\-\\-store \\fIDIR\\fB\\fR\n",
		"\n\\&.no request here, and no \\eescape.\n", ".RS\n.TP\n\\fB\\-\\-mode", ".SH EXIT STATUS\n0 done;\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// A program with several names has a section for each, lists without a heading too.
func TestRenderNames(t *testing.T) {
	const second = "Usage: other DIR\n\nDoes more.\n\n  --flag X    of it\n  --help\n"
	p := page{program: "tool", section: 8, seeAlso: "other(1)", exit: "0 done.", names: []string{"tool", "other thing"}}
	got := p.render([]string{help, second})
	for _, want := range []string{
		".SH OTHER THING\n.nf\n\\fBother \\fIDIR\\fB\\fR\n.fi\n.PP\nDoes more.\n.SS Options\n.TP\n\\fB\\-\\-flag", ".SH EXIT STATUS\n0 done.\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if n := strings.Count(got, ".SH SYNOPSIS"); n != 1 {
		t.Errorf("%d synopses", n)
	}
}

// TestPagesAreGoodRoff makes the pages of the real programs, and has groff look at
// them.
func TestPagesAreGoodRoff(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1 to have groff look at the manual pages")
	}
	bin, out := t.TempDir(), t.TempDir()
	for _, p := range pages {
		build := exec.Command("go", "build", "-o", bin, "hwvtpm/cmd/"+p.program)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	if err := run(bin, out); err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(filepath.Join(out, "*"))
	if len(found) != len(pages) {
		t.Fatalf("made %q, want %d pages", found, len(pages))
	}
	for _, name := range found {
		cmd := exec.Command("groff", "-man", "-Tascii", "-ww", "-rCHECKSTYLE=3", "-P-cbou", name)
		var warnings strings.Builder
		cmd.Stderr = &warnings
		text, err := cmd.Output()
		if err != nil || warnings.Len() > 0 {
			t.Errorf("groff: %v: %s", err, warnings.String())
		}
		for _, part := range []string{"SYNOPSIS", "--help", "EXIT STATUS", "SEE ALSO"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s has no %s", name, part)
			}
		}
	}
}
