// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"slices"

	"hwvtpm/coproc"
	"hwvtpm/internal/cli"
)

func main() { cli.Main(realMain) }

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	if err == nil && cfg.printCapabilities {
		err = printCapabilities(os.Stdout)
	} else if err == nil {
		err = run(ctx, cfg)
	}
	return cli.End(os.Stderr, "vhost-user-vtpm", err, exitCode)
}

// lasting are the causes that need an operator: a service manager that starts
// the program again and again would only hide them.
var lasting = []error{
	coproc.ErrCorrupt, coproc.ErrForeign, coproc.ErrInUse, coproc.ErrRollback, coproc.ErrWrongKey,
	coproc.ErrNotFound, coproc.ErrDenied, coproc.ErrLocked,
}

func exitCode(err error) int {
	if slices.ContainsFunc(lasting, func(bad error) bool { return errors.Is(err, bad) }) {
		return cli.ExitLasting
	}
	return cli.ExitFailure
}
