// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
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
	unix.Umask(0o077)
	cli.Main(realMain)
}

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	if err == nil {
		err = run(ctx, cfg)
	}
	return cli.End(os.Stderr, "vtpm-hostd", err, exitCode)
}

func exitCode(err error) int {
	if _, ok := errors.AsType[stateError](err); ok {
		return exitState
	}
	return cli.ExitFailure
}

// stateError is a failure to use the state.
type stateError struct{ error }

// Unwrap returns the cause.
func (e stateError) Unwrap() error { return e.error }
