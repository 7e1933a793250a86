// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/metrics"
)

// serveMetrics shows a face's counters where --metrics says, until stop is
// called, which waits for the end of it.
func serveMetrics(ctx context.Context, address string, f face, log hclog.Logger) (stop func(), err error) {
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
		if err := metrics.Serve(ctx, l, f.WriteMetrics); err != nil {
			log.Error("metrics are not shown any more", "error", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}, nil
}
