// SPDX-License-Identifier: Apache-2.0

// Command bench measures hwvtpm against swtpm and writes docs/benchmarks.md.
// See package hwvtpm/guest/bench for what is measured, and how.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"hwvtpm/guest/bench"
)

type config struct {
	out, json    string
	quick, guest bool
	only         string
}

func parse(args []string, w io.Writer) (config, error) {
	var c config
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(w)
	fs.StringVar(&c.out, "out", "", "write the report to `FILE`, as Markdown (default docs/benchmarks.md; none with --quick, --guest=false or --only)")
	fs.StringVar(&c.json, "json", "", "write all figures to `FILE`, for programs")
	fs.BoolVar(&c.quick, "quick", false, "measure as little as possible, to see that it works")
	fs.BoolVar(&c.guest, "guest", true, "boot virtual machines")
	fs.StringVar(&c.only, "only", "", "measure one `PART` alone: "+strings.Join(bench.PartNames(), ", "))
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if fs.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if c.only != "" && !slices.Contains(bench.PartNames(), c.only) {
		return c, fmt.Errorf("there is no part %q: %s", c.only, strings.Join(bench.PartNames(), ", "))
	}
	if c.only != "" {
		c.guest = c.only == "guest"
	}
	// Only a complete run may replace the document.
	if c.out == "" && !c.quick && c.guest && c.only == "" {
		c.out = "docs/benchmarks.md"
	}
	return c, nil
}

func main() {
	c, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
		err = run(ctx, c)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", strings.TrimPrefix(err.Error(), "bench: "))
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	opts := bench.Options{Plan: bench.FullPlan(), Guest: c.guest, Quick: c.quick, Only: c.only, Command: "make bench", Progress: os.Stderr}
	if c.quick {
		opts.Plan = bench.QuickPlan()
	}
	if c.quick || !c.guest {
		opts.Command = fmt.Sprintf("go run ./guest/cmd/bench --quick=%t --guest=%t", c.quick, c.guest)
	}
	if c.only != "" {
		opts.Command = fmt.Sprintf("go run ./guest/cmd/bench --quick=%t --only %s", c.quick, c.only)
	}
	report, err := bench.Run(ctx, opts)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := report.Markdown(&text); err != nil {
		return err
	}
	if _, err := os.Stdout.Write(text.Bytes()); err != nil {
		return err
	}
	if c.out != "" {
		if err := os.WriteFile(c.out, text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if c.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.json, append(b, '\n'), 0o644)
}
