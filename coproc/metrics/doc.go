// SPDX-License-Identifier: Apache-2.0

// Package metrics shows counters to a Prometheus server: it writes them in the
// text exposition format, version 0.0.4, and answers GET /metrics with them.
//
// It does this by itself. There is one vhost-user-vtpm for each virtual machine,
// and net/http alone would add 2.2 MiB to the 5.2 MiB of each; what is here adds
// next to nothing.
//
// A program gives a function that writes all its families to a [Writer]. It is
// called once for each scrape, so that nothing is kept or copied in between.
package metrics
