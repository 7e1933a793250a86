// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"runtime"

	"hwvtpm/internal/cli"
)

func init() {
	// The kernel tells a child that its parent died when the thread ends that
	// started it. The main thread ends with the process only.
	runtime.LockOSThread()
}

// program is this one's name.
const program = "hwvtpm-libvirt-hook"

func main() { cli.Main(realMain) }

// realMain gives the exit code. libvirt refuses to start a domain whose hook ends
// with another one than 0.
func realMain(ctx context.Context, args []string) int {
	cfg, err := parseArgs(args, os.Stdout)
	if err != nil {
		return cli.End(os.Stderr, program, err, nil)
	}
	// libvirt shows this text in its log and to who started the domain.
	return cli.End(os.Stderr, "hwvtpm", cfg.run(ctx), nil)
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
