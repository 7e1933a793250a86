// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"hwvtpm/internal/cli"
)

func init() {
	// The kernel tells a child that its parent died when the thread ends that
	// started it. The main thread ends with the process only.
	runtime.LockOSThread()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(realMain(ctx, os.Args[1:]))
}

// realMain gives the exit code. libvirt refuses to start a domain whose hook ends
// with another one than 0.
func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return cli.ExitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "hwvtpm-libvirt-hook: %v\nTry 'hwvtpm-libvirt-hook --help'.\n", err)
		return cli.ExitUsage
	case cfg.printVersion:
		fmt.Println("hwvtpm-libvirt-hook", cli.Version())
		return cli.ExitOK
	}
	if err := cfg.run(ctx); err != nil {
		// libvirt shows this text in its log and to who started the domain.
		fmt.Fprintf(os.Stderr, "hwvtpm: %v\n", err)
		return cli.ExitFailure
	}
	return cli.ExitOK
}

func (c config) run(ctx context.Context) error {
	switch c.command {
	case "hook":
		return c.hook(ctx, os.Stdin)
	case "supervise":
		return c.supervise(ctx)
	case "recover":
		return c.recover(ctx)
	default:
		return c.printXML(os.Stdout)
	}
}
