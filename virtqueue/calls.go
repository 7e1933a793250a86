// SPDX-License-Identifier: Apache-2.0

package virtqueue

import "math"

// callState counts used entries (split) or used slots (packed) that were pushed
// since the driver was last considered for a call.
type callState struct {
	since uint32
	ran   bool // take was answered before
}

// pushed adds n, without ever wrapping around.
func (s *callState) pushed(n uint32) { s.since += min(n, math.MaxUint32-s.since) }

// take returns the count and starts anew. first tells that no earlier take had
// anything to report.
func (s *callState) take() (n uint32, first bool) {
	n = s.since
	s.since = 0
	first = !s.ran
	s.ran = s.ran || n > 0
	return n, first
}
