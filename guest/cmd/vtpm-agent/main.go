// SPDX-License-Identifier: Apache-2.0

// Command vtpm-agent runs inside a test virtual machine and does there what the
// host asks for over a serial port: see package hwvtpm/guest/agent. It gives the
// host root in the guest, so it belongs in test images only.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
)

func main() {
	cfg := config{}
	flag.StringVar(&cfg.port, "port", "/dev/ttyS1", "serial `device` that leads to the host")
	flag.StringVar(&cfg.modules, "modules", "/etc/hwvtpm/modules", "`file` that lists the kernel modules to load first")
	flag.StringVar(&cfg.cmdline, "cmdline", "/proc/cmdline", "`file` with the kernel's command line")
	flag.Parse()
	logger := hclog.New(&hclog.LoggerOptions{Name: "vtpm-agent", Output: os.Stderr, DisableTime: true})
	if err := run(context.Background(), cfg, logger); err != nil {
		fmt.Fprintln(os.Stderr, "vtpm-agent:", err)
		os.Exit(1)
	}
}
