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
	"io"
	"os"
	"syscall"

	"hwvtpm/control/store"
	"hwvtpm/internal/cli"
)

// Exit codes beside those of package cli. They are part of the interface.
const (
	exitNotFound = 3 // there is no such thing
	exitInUse    = 5 // another process has the folder
)

// console is what the program has of its surroundings.
type console struct {
	out, err io.Writer
	getenv   func(string) string
}

func main() {
	syscall.Umask(0o077)
	con := &console{out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	cli.Main(func(ctx context.Context, args []string) int { return realMain(ctx, con, args) })
}

func realMain(ctx context.Context, con *console, args []string) int {
	inv, err := parse(con, args)
	if err == nil {
		err = inv.cmd.run(inv, ctx)
	}
	return cli.End(con.err, "vtpm-control", err, exitCode)
}

func exitCode(err error) int {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return exitNotFound
	case errors.Is(err, store.ErrInUse):
		return exitInUse
	}
	return cli.ExitFailure
}
