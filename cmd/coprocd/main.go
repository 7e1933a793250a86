// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os/signal"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/cli"
)

func main() {
	signal.Ignore(unix.SIGHUP) // there is nothing to read again
	cli.Main(realMain)
}

func realMain(ctx context.Context, args []string) int {
	return cli.Run(ctx, "coprocd", args, parseArgs, run)
}
