// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// feed gives one tier's events to r.
func feed(t *testing.T, r *results, events string) {
	t.Helper()
	r.output, r.blamed = map[name]*strings.Builder{}, map[string]bool{}
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
}

const unitEvents = `
{"Action":"run","Package":"hwvtpm/a","Test":"TestPlain"}
{"Action":"output","Package":"hwvtpm/a","Test":"TestPlain","Output":"noise\n"}
{"Action":"pass","Package":"hwvtpm/a","Test":"TestPlain","Elapsed":0.1}
{"Action":"output","Package":"hwvtpm/a","Test":"TestGated","Output":"    a_test.go:7: set GATE=1\n"}
{"Action":"skip","Package":"hwvtpm/a","Test":"TestGated"}
{"Action":"output","Package":"hwvtpm/a","Test":"TestCard","Output":"    a_test.go:9: no coprocessor card: none given\n"}
{"Action":"skip","Package":"hwvtpm/a","Test":"TestCard"}
{"Action":"output","Package":"hwvtpm/a","Output":"ok  \thwvtpm/a\t0.1s\n"}
{"Action":"pass","Package":"hwvtpm/a"}
`

func TestCountsATestOnceOverTiers(t *testing.T) {
	var out strings.Builder
	r := newResults(&out)
	feed(t, r, unitEvents)
	if got := r.forbiddenSkips(); !slices.Equal(got, []string{"a TestGated: set GATE=1"}) {
		t.Errorf("forbiddenSkips() = %q, want only TestGated with its reason", got)
	}
	feed(t, r, `{"Action":"pass","Package":"hwvtpm/a","Test":"TestGated"}{"Action":"pass","Package":"hwvtpm/a","Test":"TestPlain"}`)
	if got := r.forbiddenSkips(); len(got) > 0 {
		t.Errorf("after the gate was opened: %q", got)
	}
	if err := r.conclude(scope{all: true, strict: true}); err != nil {
		t.Errorf("conclude() = %v", err)
	}
	if want := "ok  \thwvtpm/a\t0.1s\n2 passed, 0 failed, 1 skipped\n"; out.String() != want {
		t.Errorf("output is %q, want %q", out.String(), want)
	}
}

func TestFailureIsCountedAndShown(t *testing.T) {
	for _, tc := range []struct{ what, events, count, shown string }{
		{"a failed test, not its package as well", `
			{"Action":"output","Package":"hwvtpm/a","Test":"TestX","Output":"x_test.go:3: got 1\n"}
			{"Action":"fail","Package":"hwvtpm/a","Test":"TestX"}{"Action":"fail","Package":"hwvtpm/a"}`,
			"0 passed, 1 failed, 0 skipped", "got 1"},
		{"a package that died", `
			{"Action":"output","Package":"hwvtpm/a","Output":"panic: boom\n"}{"Action":"fail","Package":"hwvtpm/a"}`,
			"0 passed, 1 failed, 0 skipped", "panic: boom"},
		{"a package that died in a test", `
			{"Action":"output","Package":"hwvtpm/a","Test":"TestX","Output":"panic: boom\n"}
			{"Action":"output","Package":"hwvtpm/a","Output":"FAIL\thwvtpm/a\t0.1s\n"}{"Action":"fail","Package":"hwvtpm/a"}`,
			"0 passed, 1 failed, 0 skipped", "died in a TestX:\npanic: boom"},
		{"a package that does not build", `
			{"ImportPath":"hwvtpm/a","Action":"build-output","Output":"a.go:1:1: syntax error\n"}{"ImportPath":"hwvtpm/a","Action":"build-fail"}
			{"Action":"fail","Package":"hwvtpm/a","FailedBuild":"hwvtpm/a"}`,
			"0 passed, 1 failed, 0 skipped", "syntax error"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			var out strings.Builder
			r := newResults(&out)
			feed(t, r, tc.events)
			if err := r.conclude(scope{}); err == nil {
				t.Error("conclude() = nil, want an error")
			}
			if !strings.HasSuffix(out.String(), "\n"+tc.count+"\n") || !strings.Contains(out.String(), tc.shown) {
				t.Errorf("output is %q, want %q in it and %q at its end", out.String(), tc.shown, tc.count)
			}
		})
	}
}

// The last lines name what was skipped, next to the count.
func TestSkipsAreNamedAtTheEnd(t *testing.T) {
	const named, count = "skipped: a TestGated: set GATE=1\n", "1 passed, 0 failed, 2 skipped\n"
	for _, tc := range []struct {
		scope scope
		want  string
		fails bool
	}{
		{scope{}, count, false}, // a tier of its own leaves out others' tests
		{scope{all: true}, named + count, false},
		{scope{all: true, strict: true}, named + count, true},
	} {
		var out strings.Builder
		r := newResults(&out)
		feed(t, r, unitEvents)
		out.Reset()
		if err := r.conclude(tc.scope); (err != nil) != tc.fails || out.String() != tc.want {
			t.Errorf("conclude(%+v) = %v, printed %q, want %q", tc.scope, err, out.String(), tc.want)
		}
	}
}

// After another tier, a tier with a gate runs the tests that have missed it.
func TestGatedTestsRunOnce(t *testing.T) {
	const gate = "HWVTPM_TEST_ROOT"
	root := tier{gate: gate}
	r := newResults(&strings.Builder{})
	packages := []string{"./a", "./b/c", "./d"}
	if got, want := root.parts(packages, r), [][]string{packages}; !cmp.Equal(got, want) {
		t.Errorf("as the first tier: parts() = %q, want %q", got, want)
	}
	feed(t, r, strings.ReplaceAll(`
		{"Action":"output","Package":"hwvtpm/a","Test":"TestSkips","Output":"a_test.go:7: set GATE=1\n"}
		{"Action":"skip","Package":"hwvtpm/a","Test":"TestSkips"}
		{"Action":"output","Package":"hwvtpm/a","Test":"TestShort","Output":"a_test.go:9: a short one; GATE=1 makes it long\n"}
		{"Action":"pass","Package":"hwvtpm/a","Test":"TestShort"}
		{"Action":"output","Package":"hwvtpm/a","Test":"TestWhole","Output":"a_test.go:9: done\n"}
		{"Action":"pass","Package":"hwvtpm/a","Test":"TestWhole"}
		{"Action":"output","Package":"hwvtpm/b/c","Test":"TestParts/one","Output":"a_test.go:7: set GATE=1\n"}
		{"Action":"skip","Package":"hwvtpm/b/c","Test":"TestParts/one"}
		{"Action":"output","Package":"hwvtpm/b/c","Test":"TestSkips","Output":"a_test.go:7: set GATE=1\n"}
		{"Action":"fail","Package":"hwvtpm/b/c","Test":"TestSkips"}`, "GATE", gate))
	want := [][]string{{"-run=^(TestParts|TestShort|TestSkips)$", "./a", "./b/c"}, {"./d"}}
	if got := root.parts(packages, r); !cmp.Equal(got, want) {
		t.Errorf("parts() = %q, want %q", got, want)
	}
	if got := (tier{gate: "HWVTPM_TEST_VM"}).parts(packages, r); !cmp.Equal(got, [][]string{packages}) {
		t.Errorf("of another gate: parts() = %q, want %q", got, packages)
	}
}

func TestNothingRanIsAnError(t *testing.T) {
	var out strings.Builder
	if err := newResults(&out).conclude(scope{}); err == nil {
		t.Error("conclude() = nil without any test")
	}
}

// A go test that dies of something else than its tests must fail the run.
func TestConsumeReportsADeadGoTest(t *testing.T) {
	for _, script := range []string{"exit 2", "exit 1", "echo nonsense", "kill -9 $$"} {
		var out strings.Builder
		if err := newResults(&out).consume(exec.Command("sh", "-c", script), false); err == nil {
			t.Errorf("consume(%q) = nil", script)
		}
	}
}

func TestGatedFindsPackagesByTheirTests(t *testing.T) {
	tree := fstest.MapFS{
		"a/a_test.go":          {Data: []byte(`os.Getenv("GATE")`)},
		"a/other_test.go":      {Data: []byte(`os.Getenv("GATE")`)},
		"b/b.go":               {Data: []byte(`os.Getenv("GATE")`)},
		"c/c_test.go":          {Data: []byte(`os.Getenv("GATE_TWO")`)},
		"d/testdata/x_test.go": {Data: []byte(`os.Getenv("GATE")`)},
		".cache/x_test.go":     {Data: []byte(`os.Getenv("GATE")`)},
		"e/f/g_test.go":        {Data: []byte(`lookup("GATE")`)},
		// What helps tests may have the gate, and help others of its kind.
		"help/ztest/z.go":  {Data: []byte(`os.Getenv("GATE")`)},
		"help/atest/a.go":  {Data: []byte(`import "hwvtpm/help/ztest"`)},
		"g/g_test.go":      {Data: []byte(`import "hwvtpm/help/ztest"`)},
		"h/h_test.go":      {Data: []byte(`import "hwvtpm/help/atest"`)},
		"i/i.go":           {Data: []byte(`import "hwvtpm/help/ztest"`)},
		"j/j_test.go":      {Data: []byte(`import "hwvtpm/help/ztest/more"`)},
		"k/tree/b_test.go": {Data: []byte(`import "hwvtpm/b"`)},
	}
	got, err := gated(tree, "GATE")
	if want := []string{"./a", "./e/f", "./g", "./h"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("gated() = %v, %v, want %v", got, err, want)
	}
}

func TestFuzzTargetsAreFound(t *testing.T) {
	tree := fstest.MapFS{
		"a/a_test.go":          {Data: []byte("func FuzzOne(f *testing.F) {\n}\nfunc FuzzTwo(f *testing.F) {}\nfunc Fuzzy() {}\n")},
		"a/b.go":               {Data: []byte("func FuzzNot(f *testing.F) {}\n")},
		"a/testdata/c_test.go": {Data: []byte("func FuzzNot(f *testing.F) {}\n")},
	}
	got, err := fuzzTargets(tree)
	if want := []fuzzTarget{{"./a", "FuzzOne"}, {"./a", "FuzzTwo"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("fuzzTargets() = %v, %v, want %v", got, err, want)
	}
}

func TestOnlyTheTimersOwnFailureIsTriedAgain(t *testing.T) {
	for output, want := range map[string]bool{
		"--- FAIL: FuzzX (3.11s)\n    context deadline exceeded\nFAIL\n":                                       true,
		"--- FAIL: FuzzX (1s)\n    Failing input written to f\n    context deadline exceeded\n":                false,
		"--- FAIL: FuzzX (1s)\n    x_test.go:9: got context deadline exceeded\n    Failing input written to f": false,
		"ok  \thwvtpm/a\t3s\n": false,
	} {
		if got := endedByItsTimer(output); got != want {
			t.Errorf("endedByItsTimer(%q) = %v, want %v", output, got, want)
		}
	}
}

func TestMergeKeepsOutcomesAndOutput(t *testing.T) {
	var out, part strings.Builder
	r, one := newResults(&out), newResults(&part)
	feed(t, one, `{"Action":"fail","Package":"hwvtpm/a","Test":"FuzzX"}`)
	r.merge(one, "what it said\n")
	if err := r.conclude(scope{}); err == nil {
		t.Error("conclude() = nil after a merged failure")
	}
	if want := "what it said\nfailed: a FuzzX\n0 passed, 1 failed, 0 skipped\n"; out.String() != want {
		t.Errorf("output is %q, want %q", out.String(), want)
	}
}

func TestEnvironOpensOneGate(t *testing.T) {
	env := []string{"HOME=/h", "HWVTPM_TEST_VM=1", "HWVTPM_TEST_ROOT=0"}
	want := map[string][]string{
		"unit":  {"HOME=/h"},
		"plain": {"HOME=/h"},
		"root":  {"HOME=/h", "HWVTPM_TEST_ROOT=1"},
		"vm":    {"HOME=/h", "HWVTPM_TEST_VM=1"},
		"fuzz":  {"HOME=/h"},
	}
	for _, tier := range tiers {
		if got := tier.environ(slices.Clone(env)); !slices.Equal(got, want[tier.name]) {
			t.Errorf("%s: environ() = %v, want %v", tier.name, got, want[tier.name])
		}
	}
}

func TestPickTiers(t *testing.T) {
	if got, err := pickTiers([]string{"vm", "unit"}); err != nil || len(got) != 2 || got[0].name != "vm" {
		t.Errorf("pickTiers(vm, unit) = %v, %v", got, err)
	}
	for _, bad := range [][]string{nil, {"unit", "moon"}} {
		if _, err := pickTiers(bad); err == nil {
			t.Errorf("pickTiers(%v) = nil error", bad)
		}
	}
}
