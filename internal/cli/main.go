// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Main is the main function of a program: it runs it with the words behind its name,
// and exits with the code that it gives. SIGINT and SIGTERM end the context.
func Main(run func(ctx context.Context, args []string) int) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// Run reads the command line of a program that takes flags only, and runs it with what
// it says. The result is the exit code.
func Run[C any](ctx context.Context, program string, args []string,
	parse func(args []string, out io.Writer) (C, error), run func(context.Context, C) error) int {
	cfg, err := parse(args, os.Stdout)
	if err == nil {
		err = run(ctx, cfg)
	}
	return End(os.Stderr, program, err, nil)
}

// lastingError is a failure that is no better next time.
type lastingError struct{ error }

// Unwrap returns the cause.
func (e lastingError) Unwrap() error { return e.error }

// Lasting marks a failure that an operator has to see to: what the program keeps is
// damaged, of another key, or in use, and is not better next time.
func Lasting(err error) error { return lastingError{err} }

// End gives the exit code of how a program ended, and tells w of a failure in the
// program's name. An end by flag.ErrHelp (see Parse) is a good one. A program that has
// codes of its own says with code which failures have them, and gives ExitFailure for the
// others; without one, it may be nil.
func End(w io.Writer, program string, err error, code func(error) int) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return ExitOK
	}
	fmt.Fprintf(w, "%s: %v\n", program, err)
	_, lasting := errors.AsType[lastingError](err)
	switch {
	case IsUsage(err):
		return ExitUsage
	case lasting:
		return ExitLasting
	case code == nil:
		return ExitFailure
	}
	return code(err)
}
