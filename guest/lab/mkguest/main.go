// SPDX-License-Identifier: Apache-2.0

// Mkguest builds the guest image of the VM tests and the demo. `make image` runs
// it in the work tree.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/guest/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := image.Config{
		Logger: hclog.New(&hclog.LoggerOptions{Name: "mkguest", Level: hclog.Info, Output: os.Stderr, DisableTime: true}),
	}
	flag.StringVar(&cfg.Out, "out", "", "`file` to write")
	flag.StringVar(&cfg.AgentBinary, "agent", "", "the vtpm-agent `program`")
	flag.StringVar(&cfg.CacheDir, "cache", "", "`folder` for compiled parts")
	flag.Parse()
	cfg.Modules = flag.Args()
	if _, err := image.Build(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "mkguest:", err)
		os.Exit(1)
	}
}
