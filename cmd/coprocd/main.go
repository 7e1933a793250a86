// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/cli"
)

func main() {
	signal.Ignore(unix.SIGHUP) // there is nothing to read again
	cli.Main(realMain)
}

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	if err == nil {
		err = run(ctx, cfg)
	}
	return cli.End(os.Stderr, "coprocd", err, nil)
}
