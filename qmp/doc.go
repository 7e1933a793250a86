// SPDX-License-Identifier: Apache-2.0

// Package qmp is a client of the QEMU Machine Protocol: a transport that other
// parts of a VM's host side can rely on, and the few commands they need.
//
// # Commands
//
// Every command carries an id and is bound to a context. Commands of several
// goroutines run at once on one connection; giving one up does not disturb
// the others. Replies may be as long as MaxLine. A refusal keeps its class: see Error.
//
// # Events
//
// A Subscription is an ordered queue. The reader never waits for a consumer, and
// no event is lost without a report.
//
// # Reading without waiting
//
// A vhost-user back-end must know whether the VM was reset before it starts a
// ring, and at that moment QEMU's main thread waits for the back-end: a QMP
// command would deadlock. The RESET event is already in the socket by then, so
// Drain reads what is there, and TryNext finds the event:
//
//	resets := client.Subscribe("RESET")
//	...
//	err := client.Drain()
//	for {
//		if _, ok := resets.TryNext(); !ok {
//			break
//		}
//		wasReset = true
//	}
//	wasReset = wasReset || resets.Overflowed() || err != nil
//
// # End of a connection
//
// The first cause ends the connection for everyone: all waiters return it, Done
// is closed and Err keeps it. There is no reconnection: dial again, subscribe,
// and query what may have changed in between.
package qmp
