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

// exitStore is the exit code if the store can't be used: it is damaged, set back, of
// another key, or in use.
const exitStore = 3

func main() {
	signal.Ignore(unix.SIGHUP) // there is nothing to read again
	cli.Main(realMain)
}

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	if err == nil {
		err = run(ctx, cfg)
	}
	return cli.End(os.Stderr, "coprocd", err, exitCode)
}

func exitCode(err error) int {
	if _, ok := errors.AsType[storeError](err); ok {
		return exitStore
	}
	return cli.ExitFailure
}

// storeError is a failure to open the store.
type storeError struct{ error }

// Unwrap returns the cause.
func (e storeError) Unwrap() error { return e.error }
