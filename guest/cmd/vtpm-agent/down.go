// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/guest/agent"
)

func goDown(cmd int) func(context.Context, none) (none, error) {
	return func(context.Context, none) (none, error) {
		downSoon(cmd)
		return none{}, nil
	}
}

// downSoon leaves time for the answer: the port does not survive what follows.
func downSoon(cmd int) {
	go func() {
		time.Sleep(200 * time.Millisecond)
		unix.Sync()
		if err := unix.Reboot(cmd); err != nil {
			fmt.Fprintln(os.Stderr, "vtpm-agent: reboot:", err)
		}
	}()
}

func kexec(_ context.Context, a agent.KexecArgs) (none, error) {
	if err := kexecLoad(a); err != nil {
		return none{}, err
	}
	downSoon(unix.LINUX_REBOOT_CMD_KEXEC)
	return none{}, nil
}

func kexecLoad(a agent.KexecArgs) error {
	kernel, err := os.Open(a.Kernel)
	if err != nil {
		return err
	}
	defer kernel.Close()
	initramfs, err := os.Open(a.Initramfs)
	if err != nil {
		return err
	}
	defer initramfs.Close()
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	err = unix.KexecFileLoad(int(kernel.Fd()), int(initramfs.Fd()), strings.TrimSpace(string(cmdline)), 0)
	if err != nil {
		return fmt.Errorf("kexec_file_load: %w", err)
	}
	return nil
}
