// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hwvtpm/guest/image"
	"hwvtpm/guest/lab"
)

// The card is a PCI function of a machine with an IOMMU, whose kernel hands it
// to a process: the PCIe driver through the kernel's VFIO. The tests of that
// process are the tests here.
func TestCardThroughVFIO(t *testing.T) {
	for _, k := range []struct {
		series  string
		modules []string // in the order of loading
		flags   []string // of cardtest
	}{
		{"6.12", []string{"virt/lib/irqbypass", "drivers/vfio/vfio", "drivers/vfio/vfio_iommu_type1",
			"drivers/vfio/pci/vfio-pci-core", "drivers/vfio/pci/vfio-pci"}, nil},
		// What comes from the card is the same here.
		{"6.1", []string{"virt/lib/irqbypass", "drivers/vfio/vfio", "drivers/vfio/vfio_virqfd", "drivers/vfio/vfio_iommu_type1",
			"drivers/vfio/pci/vfio-pci-core", "drivers/vfio/pci/vfio-pci"}, []string{"-test.skip=^TestConformance$"}},
	} {
		t.Run(k.series, func(t *testing.T) {
			b := newBed(t)
			card, err := b.StartCard(b.ctx)
			b.must("starting the card", err)
			guest, err := b.Boot(b.ctx, lab.VMOptions{
				Kernel: k.series, Image: b.cardImage(k.series, k.modules), Append: "intel_iommu=on", Extra: card.Options(),
			})
			b.must("booting", err)
			for _, mod := range guest.Hello.Modules {
				if mod.Error != "" {
					t.Fatalf("module %s: %s", mod.Name, mod.Error)
				}
			}
			b.runCardtest(guest, k.flags)
			if !card.Alive() || !guest.Alive() {
				t.Error("card or QEMU died")
			}
			b.must("powering off", guest.Agent.Poweroff(b.ctx))
			b.must("QEMU", guest.Wait(b.ctx))
		})
	}
}

// runCardtest runs cardtest in the guest, and its tests as tests.
func (b *bed) runCardtest(guest *lab.Guest, flags []string) {
	b.Helper()
	limit := b.Env.Patience(time.Minute)
	argv := append([]string{"/bin/cardtest", "-test.v", "-test.timeout=" + limit.String()}, flags...)
	r, err := guest.Agent.Run(b.ctx, argv...)
	b.must("running cardtest", err)
	b.Logf("cardtest took %v", time.Duration(r.NS).Round(time.Second))
	results := testResults(string(r.Stdout))
	for _, res := range results {
		b.Run(res.name, res.report)
	}
	if len(results) == 0 || r.ExitCode != 0 {
		b.Errorf("cardtest ended with %d after %d tests: %s%s", r.ExitCode, len(results), r.Stderr, lastLines(string(r.Stdout), 60))
	}
}

// cardImage builds an image with the guest's test program and VFIO.
func (b *bed) cardImage(series string, modules []string) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "cardtest")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./guest/cmd/cardtest")
	cmd.Dir, cmd.Env = b.Env.Top, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("building cardtest: %v\n%s", err, out)
	}
	return b.imageWith(series, modules, map[string]string{"bin/cardtest": program, "bin/vhost-user-vtpm": b.Env.Program("vhost-user-vtpm")})
}

// imageWith builds an image with modules of a kernel, and files.
func (b *bed) imageWith(series string, modules []string, files map[string]string) string {
	b.Helper()
	var paths []string
	for _, name := range modules {
		found, err := filepath.Glob(filepath.Join(b.Env.Cache, "kernel-"+series, "modules/kernel", name+".ko*"))
		if err != nil || len(found) != 1 {
			b.Fatalf("module %s of %s: %q, %v", name, series, found, err)
		}
		paths = append(paths, found[0])
	}
	out := filepath.Join(b.TempDir(), "guest.cpio")
	_, err := image.Build(b.ctx, image.Config{
		Out:         out,
		AgentBinary: b.Env.Program("vtpm-agent"),
		Modules:     paths,
		Files:       files,
		SourceDir:   b.Env.Top,
		CacheDir:    filepath.Join(b.Env.Cache, "image"),
	})
	b.must("building an image", err)
	return out
}

// testResult is a test that ran elsewhere.
type testResult struct{ name, verdict, took, output string }

// report is the test, here.
func (r testResult) report(t *testing.T) {
	t.Logf("%s in the guest after %s\n%s", r.verdict, r.took, r.output)
	switch r.verdict {
	case "FAIL":
		t.Fail()
	case "SKIP":
		t.Skip("skipped in the guest")
	}
}

var (
	nowRunning = regexp.MustCompile(`^=== (?:RUN|NAME|CONT)\s+(\S+)$`)
	hasEnded   = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+s)\)$`)
)

// testResults reads what a test binary prints with -test.v. A test that began
// and has no end has failed.
func testResults(output string) []testResult {
	var order []string
	tests := map[string]*testResult{}
	var current *testResult
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if m := nowRunning.FindStringSubmatch(line); m != nil {
			if tests[m[1]] == nil {
				tests[m[1]] = &testResult{name: m[1], verdict: "FAIL", took: "no end"}
				order = append(order, m[1])
			}
			current = tests[m[1]]
		} else if m := hasEnded.FindStringSubmatch(line); m != nil && tests[m[2]] != nil {
			tests[m[2]].verdict, tests[m[2]].took = m[1], m[3]
		} else if current != nil {
			current.output += line + "\n"
		}
	}
	results := make([]testResult, len(order))
	for i, name := range order {
		results[i] = *tests[name]
	}
	return results
}

// lastLines is the end of a text.
func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// What is read of a test binary is what it said.
func TestResultsOfTests(t *testing.T) {
	got := testResults("=== RUN   TestA\n=== RUN   TestA/b\n    a.go:1: text\n=== NAME  TestA\n    a.go:2: more\n" +
		"--- FAIL: TestA (1.50s)\n    --- PASS: TestA/b (0.20s)\n=== RUN   TestC\npanic: x\nFAIL\n")
	want := []testResult{
		{"TestA", "FAIL", "1.50s", "    a.go:2: more\n"},
		{"TestA/b", "PASS", "0.20s", "    a.go:1: text\n"},
		{"TestC", "FAIL", "no end", "panic: x\nFAIL\n"},
	}
	if len(got) != len(want) {
		t.Fatalf("testResults = %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("result %d = %+v, want %+v", i, got[i], want[i])
		}
	}
}
