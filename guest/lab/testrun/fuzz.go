// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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
		err := t.goTest(ctx, res, "-run=^$", "-fuzz=^"+f.name+"$", "-fuzztime="+fuzztime, f.pkg)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}
