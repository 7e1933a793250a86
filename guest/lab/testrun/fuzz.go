// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// runFuzz runs each fuzz target for FUZZTIME (default 10s). What it finds lands
// in the package's testdata/fuzz, to be kept with the fix.
func (t tier) runFuzz(ctx context.Context, res *results) error {
	fuzztime := os.Getenv("FUZZTIME")
	if fuzztime == "" {
		fuzztime = "10s"
	}
	targets, err := fuzzTargets(os.DirFS("."))
	if err != nil {
		return err
	}
	fmt.Fprintf(res.out, "== %s tier: %d targets, %s each\n", t.name, len(targets), fuzztime)
	var errs []error
	for _, f := range targets {
		if ctx.Err() != nil {
			break
		}
		if err := t.fuzzOne(ctx, res, f, fuzztime); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}

// fuzzTries bounds the runs of one target that end by the go command's own race.
const fuzzTries = 3

func (t tier) fuzzOne(ctx context.Context, res *results, f fuzzTarget, fuzztime string) error {
	for try := 1; ; try++ {
		var out strings.Builder
		one := newResults(&out)
		err := t.goTest(ctx, one, "-run=^$", "-fuzz=^"+f.name+"$", "-fuzztime="+fuzztime, f.pkg)
		if try < fuzzTries && endedByItsTimer(out.String()) {
			continue
		}
		res.merge(one, out.String())
		return err
	}
}

// endedByItsTimer recognises a failure of the go command and not of the target:
// when the fuzzing time runs out between two inputs, the command now and then
// reports its own timer as the target's error. A real finding names its input.
func endedByItsTimer(output string) bool {
	return strings.Contains(output, "    context deadline exceeded\n") && !strings.Contains(output, "Failing input")
}
