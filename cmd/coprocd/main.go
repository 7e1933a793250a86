// SPDX-License-Identifier: Apache-2.0

// Coprocd is a simulated card as a PCI function: it serves vfio-user on a
// socket, to a host driver (package coproc/pcie) or to QEMU, and runs one
// hwvtpm-engine for its slot.
//
//	coprocd --vfio-user SOCKET --state DIR --engine PATH
//
// The program itself holds no secret. It ends in order on SIGINT and SIGTERM.
// Exit codes: 0 ended in order, 1 failed, 2 wrong command line.
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	os.Exit(realMain(ctx, os.Args[1:]))
}

func realMain(ctx context.Context, args []string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-version") {
		fmt.Println("coprocd", buildVersion)
		return 0
	}
	cfg, err := parseArgs(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "coprocd:", err)
		return 2
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "coprocd:", err)
		return 1
	}
	return 0
}
