// SPDX-License-Identifier: Apache-2.0

// Mkguest builds the guest images of the VM tests and the demo: a plain one, and
// the same with tpm2-tools behind it. `make image` runs it in the work tree.
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
	var tools, extended string
	flag.StringVar(&cfg.Out, "plain", "", "`file` to write, without tpm2-tools")
	flag.StringVar(&extended, "out", "", "`file` to write, with them")
	flag.StringVar(&tools, "tools", "", "`folder` with an unpacked Debian that has tpm2-tools")
	flag.StringVar(&cfg.AgentBinary, "agent", "", "the vtpm-agent `program`")
	flag.StringVar(&cfg.CacheDir, "cache", "", "`folder` for compiled parts")
	flag.Parse()
	cfg.Modules = flag.Args()
	if err := build(ctx, cfg, tools, extended); err != nil {
		fmt.Fprintln(os.Stderr, "mkguest:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, cfg image.Config, tools, extended string) error {
	if _, err := image.Build(ctx, cfg); err != nil {
		return err
	}
	more, err := image.TPMTools(tools)
	if err != nil {
		return err
	}
	_, err = image.Extend(extended, cfg.Out, more)
	return err
}
