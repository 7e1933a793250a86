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
	"runtime/debug"
	"syscall"
)

// Exit codes. They are part of the interface: libvirt refuses to start a domain
// whose hook ends with another code than 0.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2 // the command line is wrong
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

func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "hwvtpm-libvirt-hook: %v\nTry 'hwvtpm-libvirt-hook --help'.\n", err)
		return exitUsage
	case cfg.printVersion:
		fmt.Println("hwvtpm-libvirt-hook", version())
		return exitOK
	}
	if err := cfg.run(ctx); err != nil {
		// libvirt shows this text in its log and to who started the domain.
		fmt.Fprintf(os.Stderr, "hwvtpm: %v\n", err)
		return exitFailure
	}
	return exitOK
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

// buildVersion is set by the Makefile.
var buildVersion string

func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
