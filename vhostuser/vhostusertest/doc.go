// SPDX-License-Identifier: Apache-2.0

// Package vhostusertest is a vhost-user front-end, what QEMU is to a back-end:
// for tests, benchmarks and fuzzing of back-ends.
//
// [Dial] connects, sends the messages that QEMU 11.1.3 sends up to and with
// DRIVER_OK, in its order, and gives a [Frontend] with one running queue:
//
//	f, err := vhostusertest.Dial(path, vhostusertest.Options{EventIdx: true})
//	resp, err := f.Exchange(req, 4096)
//	defer f.Close()
//
// Guest memory is a memfd, the queue is driven by package queuetest, kicks and
// calls are eventfds. Stop, Continue, Restart and Close do what QEMU does when
// a VM is paused, goes on, when a guest driver is bound anew, and at the end.
//
// # Hostile front-ends
//
// [Open] connects and sends nothing. [Conn] has every message as a method, and
// below that Send and WriteRaw, which put any bytes and any descriptors on the
// wire. The package has its own encoder: it shares none with package vhostuser,
// so that a mistake there does not meet its mirror image here.
//
// # Goroutines
//
// A Frontend belongs to one goroutine.
package vhostusertest
