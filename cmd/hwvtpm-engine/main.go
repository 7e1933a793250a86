// SPDX-License-Identifier: Apache-2.0

// Hwvtpm-engine is the worker of a simulated card: one TPM 2.0 in a process of
// its own. A driver starts it, with the sockets it speaks on as descriptors 3
// and 4; it is of no use on a command line.
package main

import (
	"fmt"
	"os"

	"hwvtpm/firmware"
)

func main() {
	cfg, err := firmware.ParseArgs(os.Args[1:], os.Stderr)
	if err == nil {
		err = firmware.Run(cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error", err)
		os.Exit(1)
	}
}
