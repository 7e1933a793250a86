// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os/signal"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/cli"
)

func main() {
	signal.Ignore(unix.SIGHUP) // files are read when they are needed
	unix.Umask(0o077)
	cli.Main(realMain)
}

func realMain(ctx context.Context, args []string) int {
	return cli.Run(ctx, "vtpm-hostd", args, parseArgs, run)
}
