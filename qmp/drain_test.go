// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"testing"
)

// What the peer has written before Drain is called, TryNext finds after it,
// whether the reader goroutine or Drain got the bytes.
func TestDrainSeesEverythingWrittenBefore(t *testing.T) {
	srv, c := dial(t)
	sub := c.Subscribe("RESET")
	for i := range 1000 {
		srv.Event("RESET", map[string]any{"n": i})
		if err := c.Drain(); err != nil {
			t.Fatalf("Drain() = %v", err)
		}
		e, ok := sub.TryNext()
		if !ok {
			t.Fatalf("round %d: event is not there after Drain", i)
		}
		if got := e.Data["n"]; got != float64(i) {
			t.Fatalf("round %d: got event %v", i, got)
		}
	}
}
