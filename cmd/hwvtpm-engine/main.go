// SPDX-License-Identifier: Apache-2.0

// Hwvtpm-engine is the worker of a card: one TPM 2.0 in a process of its own. It
// is of no use on a command line. There are two ways to start it:
//
//	hwvtpm-engine --worker [--own-user] [--report]  by a card that has many slots
//	hwvtpm-engine --state DIR                       by a driver, as a card of one slot
//
// The first is shut in (package sandbox) and gets all it has over descriptor 3,
// with --own-user as the only process of its user, and with --report it says what its
// host does not let it have; the second keeps a directory, and speaks on descriptors 3
// and 4.
//
// Exit codes: 0 ended in order, 1 failed, 2 wrong command line, 77 no sandbox.
// What is wrong with a state is told to the driver or the card, not by an exit
// code alone.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"hwvtpm/firmware"
	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/sandbox" // acts before main if the first argument is --worker
	"hwvtpm/firmware/wire"
	"hwvtpm/internal/cli"
	"hwvtpm/internal/footprint"
)

func main() {
	os.Exit(realMain(os.Args[1:]))
}

func realMain(args []string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-version") {
		v := engine.Version()
		fmt.Printf("hwvtpm-engine %s, libtpms %d.%d.%d\n", cli.Version(), v>>16, v>>8&0xff, v&0xff)
		return 0
	}
	if report, ok := workerArgs(args); ok {
		if report {
			for _, line := range missing(sandbox.Report()) {
				fmt.Fprintln(os.Stderr, line)
			}
		}
		return exitCode(firmware.RunWorker(firmware.WorkerConfig{SupervisorFD: wire.SupervisorFD, Log: os.Stderr}))
	}
	cfg, err := firmware.ParseArgs(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "error", err)
		return 2
	}
	defer footprint.TrimLater().Stop()
	return exitCode(firmware.Run(cfg))
}

// workerArgs tells whether these are the arguments of a worker, and whether it is to
// report. Package sandbox has looked at the first two already.
func workerArgs(args []string) (report, ok bool) {
	if len(args) == 0 || args[0] != "--worker" {
		return false, false
	}
	args = args[1:]
	if len(args) > 0 && args[0] == "--own-user" {
		args = args[1:]
	}
	if len(args) > 0 && args[0] == "--report" {
		report, args = true, args[1:]
	}
	return report, len(args) == 0
}

// missing gives the log lines of what a worker's host does not let it have. Without a
// filter of system calls there is no worker.
func missing(s sandbox.Status) (lines []string) {
	if s.Landlock == 0 {
		lines = append(lines, "info this kernel has no Landlock: the filter of system calls alone shuts the worker in")
	}
	if !s.Locked {
		lines = append(lines, "info memory is not locked: secrets of the TPM may be swapped out")
	}
	return lines
}

func exitCode(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error", err)
		return 1
	}
	return 0
}
