// SPDX-License-Identifier: Apache-2.0

// Hwvtpm-engine is the worker of a simulated card: one TPM 2.0 in a process of
// its own. A driver starts it, with the sockets it speaks on as descriptors 3
// and 4; it is of no use on a command line.
//
// Exit codes: 0 ended in order, 1 failed, 2 wrong command line. What is wrong
// with a state directory is told to the driver, not by an exit code.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"hwvtpm/firmware"
	"hwvtpm/firmware/engine"
)

// buildVersion is set by the Makefile.
var buildVersion = "(devel)"

func main() {
	os.Exit(realMain(os.Args[1:]))
}

func realMain(args []string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-version") {
		v := engine.Version()
		fmt.Printf("hwvtpm-engine %s, libtpms %d.%d.%d\n", buildVersion, v>>16, v>>8&0xff, v&0xff)
		return 0
	}
	cfg, err := firmware.ParseArgs(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "error", err)
		return 2
	}
	if err := firmware.Run(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "error", err)
		return 1
	}
	return 0
}
