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

// exitState is the exit code if the state can't be used: another process has it, or
// its key is of another TPM. It is not better next time.
const exitState = 3

func main() {
	signal.Ignore(unix.SIGHUP) // files are read when they are needed
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	unix.Umask(0o077)
	os.Exit(realMain(ctx, os.Args[1:]))
}

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return cli.ExitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "vtpm-hostd: %v\nTry 'vtpm-hostd --help'.\n", err)
		return cli.ExitUsage
	case cfg.printVersion:
		fmt.Println("vtpm-hostd", cli.Version())
		return cli.ExitOK
	}
	if err = run(ctx, cfg); err == nil {
		return cli.ExitOK
	}
	fmt.Fprintf(os.Stderr, "vtpm-hostd: %v\n", err)
	if _, ok := errors.AsType[stateError](err); ok {
		return exitState
	}
	return cli.ExitFailure
}

// stateError is a failure to use the state.
type stateError struct{ error }

// Unwrap returns the cause.
func (e stateError) Unwrap() error { return e.error }
