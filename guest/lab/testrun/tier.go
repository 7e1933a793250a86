// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tier is one way to run tests.
type tier struct {
	name    string
	gate    string   // environment variable that opens it; empty: every package
	flags   []string // for go test
	fuzz    bool     // run fuzz targets instead of tests
	verbose bool     // print each test as it ends: for tiers with long tests
}

var tiers = []tier{
	{name: "unit", flags: []string{"-race", "-timeout=15m"}},
	{name: "plain", flags: []string{"-timeout=15m"}},
	{name: "root", gate: "HWVTPM_TEST_ROOT", flags: []string{"-count=1", "-p=1", "-timeout=15m"}},
	{name: "vm", gate: "HWVTPM_TEST_VM", flags: []string{"-count=1", "-p=1", "-timeout=30m", "-artifacts"}, verbose: true},
	{name: "fuzz", fuzz: true, verbose: true},
}

func pickTiers(names []string) ([]tier, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("no tier named")
	}
	var picked []tier
	for _, name := range names {
		i := slices.IndexFunc(tiers, func(t tier) bool { return t.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no tier is called %q", name)
		}
		picked = append(picked, tiers[i])
	}
	return picked, nil
}

// run runs the tier from the current folder, the work tree, into res. A failed
// test is not an error here; a go test that ended otherwise is.
func (t tier) run(ctx context.Context, res *results) error {
	if t.fuzz {
		return t.runFuzz(ctx, res)
	}
	packages := []string{"./..."}
	if t.gate != "" {
		var err error
		if packages, err = gated(os.DirFS("."), t.gate); err != nil {
			return err
		}
	}
	fmt.Fprintf(res.out, "== %s tier: %s\n", t.name, strings.Join(packages, " "))
	if len(packages) == 0 {
		return nil
	}
	flags := t.flags
	if slices.Contains(flags, "-artifacts") {
		dir, err := filepath.Abs(filepath.Join("build", "test-"+t.name))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		flags = append(slices.Clone(flags), "-outputdir="+dir)
	}
	var errs []error
	for _, part := range t.parts(packages, res) {
		errs = append(errs, t.goTest(ctx, res, slices.Concat(flags, part)...))
	}
	return errors.Join(errs...)
}

// goTest runs one go test and reads its events.
func (t tier) goTest(ctx context.Context, res *results, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	// go test passes the interrupt on to the tests, which clean up.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Stderr = res.out
	cmd.Env = t.environ(os.Environ())
	return res.consume(cmd, t.verbose)
}

// environ opens the tier's gate and shuts the others.
func (t tier) environ(env []string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(tiers, func(other tier) bool { return other.gate != "" && other.gate == name })
	})
	if t.gate == "" {
		return env
	}
	return append(env, t.gate+"=1")
}
