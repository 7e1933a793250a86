// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"hwvtpm/internal/cli"
)

// console is what a program has of its surroundings.
type console struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
}

// programs are the personalities by name.
var programs = map[string]func(context.Context, *console, []string) error{
	"swtpm":       swtpm,
	"swtpm_setup": swtpmSetup,
	"swtpm_ioctl": swtpmIoctl,
}

const usage = `Usage: swtpm socket --tpm2 --tpmstate dir=DIR --ctrl type=unixio,path=PATH [options]
       swtpm_setup --tpm2 --tpm-state DIR [options]
       swtpm_ioctl --unix PATH | --tcp HOST:PORT command
       hwvtpm-swtpm swtpm|swtpm_setup|swtpm_ioctl ...

swtpm's command line over a slot of a coprocessor: install the program under
these three names. Each of them takes --help.
`

func main() {
	con := &console{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	cli.Main(func(ctx context.Context, _ []string) int { return realMain(ctx, con, os.Args) })
}

func realMain(ctx context.Context, con *console, args []string) int {
	name, rest := filepath.Base(args[0]), args[1:]
	run := programs[name]
	if run == nil && len(rest) > 0 {
		name, rest = rest[0], rest[1:]
		run = programs[name]
	}
	if run == nil {
		fmt.Fprint(con.err, usage)
		return cli.ExitFailure
	}
	err := run(ctx, con, rest)
	switch {
	case err == nil, errors.Is(err, errPrinted):
		return cli.ExitOK
	}
	fmt.Fprintf(con.err, "%s: %v\n", name, err)
	return cli.ExitFailure
}

// errPrinted: the command line asked for a text only, which was printed.
var errPrinted = errors.New("printed")
