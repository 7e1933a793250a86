// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

// run runs the named tiers, all of them even if one fails, and prints the count.
func run(ctx context.Context, names []string) error {
	chosen, err := pickTiers(names)
	if err != nil {
		return err
	}
	res := newResults(os.Stdout)
	var errs []error
	for _, t := range chosen {
		if err := t.run(ctx, res); err != nil {
			errs = append(errs, fmt.Errorf("%s tier: %w", t.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	all := len(chosen) == len(tiers)
	errs = append(errs, res.conclude(scope{all: all, strict: all && os.Getenv("CI") == "true"}))
	return errors.Join(errs...)
}
