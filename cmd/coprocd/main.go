// SPDX-License-Identifier: Apache-2.0

// Coprocd is a simulated card as a PCI function: it serves vfio-user on a
// socket, to a host driver (package coproc/pcie) or to QEMU, and runs one
// hwvtpm-engine for its slot.
//
//	coprocd --vfio-user SOCKET --state DIR --engine PATH
//
// The program itself holds no secret. It ends in order on SIGINT and SIGTERM.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	cfg, err := parseArgs(os.Args[1:], os.Stderr)
	if err == nil {
		err = run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "coprocd:", err)
		os.Exit(1)
	}
}
