// SPDX-License-Identifier: Apache-2.0

// Package turn is for goroutines that spend their lives in blocking system calls, since
// those answer faster than the runtime's poller.
//
// The Go scheduler means a goroutine's turn to last 10 ms. One that had it for longer
// loses its right to run (its P) as soon as it is found in a system call, however short
// the call. To get it back then wakes two threads of the runtime, in each call from
// there on, because a goroutine that only calls the system never ends its turn itself.
// Where requests and answers are some 50 µs apart, that was up to a third of the
// processor time of a request.
package turn
