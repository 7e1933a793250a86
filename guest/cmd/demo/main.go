// SPDX-License-Identifier: Apache-2.0

// Demo walks through the life of a virtual machine's TPM: a guest uses it, its
// driver is unbound, its engine is killed, the machine is reset, and another
// machine takes over its state. `make demo` runs it. Each step shows what is
// done and checks the outcome; the exit code is 0 only if all checks held.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/term"

	"hwvtpm/guest/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	env, err := lab.Find()
	if err != nil {
		return err
	}
	if err := env.Prepare(ctx, os.Stderr); err != nil {
		return err
	}
	logs := filepath.Join(env.Build, "demo")
	if err := errors.Join(os.RemoveAll(logs), os.MkdirAll(logs, 0o755)); err != nil {
		return err
	}
	rig, err := lab.NewRig(env, logs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.Close()) }()

	out := &transcript{w: os.Stdout, terminal: term.IsTerminal(int(os.Stdout.Fd()))}
	rig.Logf = out.note
	ctx, cancel := context.WithTimeout(ctx, env.Patience(2*time.Minute))
	defer cancel()
	out.headline("A virtual machine's TPM, from power-on to power-on (QEMU on %s)", env.Accel)
	d := &demo{ctx: ctx, rig: rig, out: out}
	for _, s := range steps {
		out.step(s.title)
		if err := s.do(d); err != nil {
			out.failed(err)
			return fmt.Errorf("step %q failed; logs are in build/demo", s.title)
		}
	}
	out.headline("All %d checks held.", out.checks)
	return nil
}
