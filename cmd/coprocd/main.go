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
)

// buildVersion is set by the Makefile.
var buildVersion = "(devel)"

// Exit codes. They are part of the interface.
const (
	exitOK      = 0
	exitFailure = 1 // something failed while running
	exitUsage   = 2 // the command line is wrong
	exitStore   = 3 // the store can't be used: damaged, set back, of another key, or in use
)

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
		return exitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "coprocd: %v\nTry 'coprocd --help'.\n", err)
		return exitUsage
	case cfg.printVersion:
		fmt.Println("coprocd", buildVersion)
		return exitOK
	}
	return report(run(ctx, cfg))
}

func report(err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(os.Stderr, "coprocd: %v\n", err)
	if _, ok := errors.AsType[storeError](err); ok {
		return exitStore
	}
	return exitFailure
}

// storeError is a failure to open the store.
type storeError struct{ error }

// Unwrap returns the cause.
func (e storeError) Unwrap() error { return e.error }
