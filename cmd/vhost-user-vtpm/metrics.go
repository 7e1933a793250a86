// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"

	"hwvtpm/coproc/metrics"
)

// serveMetrics shows the device's counters where --metrics says, until stop is
// called, which waits for the end of it.
func (b *backend) serveMetrics(ctx context.Context) (stop func(), err error) {
	if b.cfg.metrics == "" {
		return func() {}, nil
	}
	l, err := metrics.Listen(b.cfg.metrics)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := metrics.Serve(ctx, l, b.device.WriteMetrics); err != nil {
			b.log.Error("metrics are not shown any more", "error", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}, nil
}
