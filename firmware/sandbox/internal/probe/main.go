// SPDX-License-Identifier: Apache-2.0

// Probe is what the tests of package sandbox start as a worker: it tries one
// thing that a worker may not do, or works hard at what a worker does.
//
//	probe --worker report
//	probe --worker wait
//	probe --worker try NAME PID FD
//	probe --worker work
//	probe --worker syscalls N
//
// PID is a process that is not its own. Without --worker it is outside of the
// sandbox, for comparison.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"hwvtpm/firmware/sandbox"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--worker" {
		args = args[1:]
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, "error", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "report":
		fmt.Printf("%+v", sandbox.Report())
		return nil
	case len(args) == 1 && args[0] == "wait":
		fmt.Println("ready")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case len(args) == 3 && args[0] == "try":
		pid, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return try(args[1], pid)
	case len(args) == 1 && args[0] == "work":
		return work()
	case len(args) == 2 && args[0] == "syscalls":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return timeSyscalls(n)
	}
	return fmt.Errorf("unknown arguments %q", args)
}
