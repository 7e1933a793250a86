// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/metrics"
)

// counted is what has counters to show.
type counted interface {
	// WriteMetrics writes what was counted.
	WriteMetrics(w *metrics.Writer)
}

// serveMetrics shows counters where --metrics says, until stop is called, which waits
// for the end of it.
func serveMetrics(ctx context.Context, address string, log hclog.Logger, all ...counted) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	l, err := metrics.Listen(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		write := func(w *metrics.Writer) {
			for _, c := range all {
				c.WriteMetrics(w)
			}
		}
		if err := metrics.Serve(ctx, l, write); err != nil {
			log.Error("metrics are not shown any more", "error", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}, nil
}
