// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/term"

	"hwvtpm/coproc"
	"hwvtpm/internal/cli"
)

// Exit codes beside those of package cli. They are part of the interface.
const (
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
	seen := term.IsTerminal(int(os.Stderr.Fd()))
	con := &console{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv,
		askable: seen && term.IsTerminal(int(os.Stdin.Fd())), showable: seen,
	}
	cli.Main(func(ctx context.Context, args []string) int { return realMain(ctx, con, args) })
}

func realMain(ctx context.Context, con *console, args []string) int {
	inv, err := parse(con, args)
	if err == nil {
		err = inv.run(ctx)
	}
	return cli.End(con.err, "vtpmctl", err, exitCode)
}

func exitCode(err error) int {
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
	return cli.ExitFailure
}
