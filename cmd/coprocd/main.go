// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/cli"
)

// exitStore is the exit code if the store can't be used: it is damaged, set back, of
// another key, or in use.
const exitStore = 3

func main() {
	signal.Ignore(unix.SIGHUP) // there is nothing to read again
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	os.Exit(realMain(ctx, os.Args[1:]))
}

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return cli.ExitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "coprocd: %v\nTry 'coprocd --help'.\n", err)
		return cli.ExitUsage
	case cfg.printVersion:
		fmt.Println("coprocd", cli.Version())
		return cli.ExitOK
	}
	return report(run(ctx, cfg))
}

func report(err error) int {
	if err == nil {
		return cli.ExitOK
	}
	fmt.Fprintf(os.Stderr, "coprocd: %v\n", err)
	if _, ok := errors.AsType[storeError](err); ok {
		return exitStore
	}
	return cli.ExitFailure
}

// storeError is a failure to open the store.
type storeError struct{ error }

// Unwrap returns the cause.
func (e storeError) Unwrap() error { return e.error }
