// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/term"

	"hwvtpm/coproc"
)

// Exit codes. They are part of the interface.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2 // the command line is wrong
	exitNotFound = 3 // there is no such slot
	exitDenied   = 4 // the card wants another key, or an administrator
	exitInUse    = 5 // somebody else has the slot open
)

// console is what the program has of its surroundings.
type console struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	askable  bool // a person is at in and err
	showable bool // a person looks at err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	seen := term.IsTerminal(int(os.Stderr.Fd()))
	os.Exit(realMain(ctx, &console{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv,
		askable: seen && term.IsTerminal(int(os.Stdin.Fd())), showable: seen,
	}, os.Args[1:]))
}

func realMain(ctx context.Context, con *console, args []string) int {
	inv, err := parse(con, args)
	if err == nil {
		err = inv.run(ctx)
	}
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(con.err, "vtpmctl: %v\n", err)
	}
	return exitCode(err)
}

// usageError is a command line that is wrong.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	for _, c := range []struct {
		cause error
		code  int
	}{
		{coproc.ErrNotFound, exitNotFound}, {coproc.ErrDenied, exitDenied}, {coproc.ErrInUse, exitInUse},
	} {
		if errors.Is(err, c.cause) {
			return c.code
		}
	}
	return exitFailure
}

// buildVersion is set by the Makefile.
var buildVersion string

func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
