// SPDX-License-Identifier: Apache-2.0

// Vtpm-control is the control server of a cloud: the local authority that
// certifies attestation keys of hosts and vTPMs after proof that they live in
// their TPMs. Run it with --help for its commands, and see docs/control.md.
//
// Rules of its output: what was asked for goes to stdout, as a table or, with
// --json, for programs; all else goes to stderr. A token is printed once, when it
// is made; no other secret is printed, and none is taken from the command line.
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

	"hwvtpm/control/store"
)

// Exit codes. They are part of the interface.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2 // the command line is wrong
	exitNotFound = 3 // there is no such thing
	exitInUse    = 5 // another process has the folder
)

// console is what the program has of its surroundings.
type console struct {
	out, err io.Writer
	getenv   func(string) string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	syscall.Umask(0o077)
	os.Exit(realMain(ctx, &console{out: os.Stdout, err: os.Stderr, getenv: os.Getenv}, os.Args[1:]))
}

func realMain(ctx context.Context, con *console, args []string) int {
	inv, err := parse(con, args)
	if err == nil {
		err = inv.cmd.run(inv, ctx)
	}
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(con.err, "vtpm-control: %v\n", err)
	}
	return exitCode(err)
}

// usageError is a command line that is wrong.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	_, usage := errors.AsType[usageError](err)
	switch {
	case err == nil:
		return exitOK
	case usage:
		return exitUsage
	case errors.Is(err, store.ErrNotFound):
		return exitNotFound
	case errors.Is(err, store.ErrInUse):
		return exitInUse
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
