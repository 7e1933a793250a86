// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"hwvtpm/coproc"
	"hwvtpm/internal/cli"
)

// exitState is the exit code if the TPM can't be used and trying again won't help.
const exitState = 3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(realMain(ctx, os.Args[1:]))
}

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return cli.ExitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "vhost-user-vtpm: %v\nTry 'vhost-user-vtpm --help'.\n", err)
		return cli.ExitUsage
	case cfg.printCapabilities:
		return report(printCapabilities(os.Stdout))
	case cfg.printVersion:
		fmt.Println("vhost-user-vtpm", cli.Version())
		return cli.ExitOK
	}
	return report(run(ctx, cfg))
}

// lasting are the causes that need an operator: a service manager that starts
// the program again and again would only hide them.
var lasting = []error{
	coproc.ErrCorrupt, coproc.ErrForeign, coproc.ErrInUse, coproc.ErrRollback, coproc.ErrWrongKey,
	coproc.ErrNotFound, coproc.ErrDenied, coproc.ErrLocked,
}

func report(err error) int {
	if err == nil {
		return cli.ExitOK
	}
	fmt.Fprintf(os.Stderr, "vhost-user-vtpm: %v\n", err)
	if slices.ContainsFunc(lasting, func(bad error) bool { return errors.Is(err, bad) }) {
		return exitState
	}
	return cli.ExitFailure
}
