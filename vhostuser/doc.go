// SPDX-License-Identifier: Apache-2.0

// Package vhostuser is the back-end side of the vhost-user protocol: it lets a
// virtio device live in a process of its own, next to QEMU or another
// front-end (QEMU, docs/interop/vhost-user.rst, called "the spec" here).
//
// A [Device] says what the device is, a [Server] serves it:
//
//	srv, err := vhostuser.NewServer(vhostuser.Config{Device: dev})
//	err = srv.Serve(ctx, listener) // one session after the other
//
// # Sessions
//
// A session is one connection and lives exactly as long as it. When the
// front-end hangs up, all rings stop, all memory is unmapped and every
// descriptor is closed; the device stays. A front-end that comes back makes a
// new session. There is at most one at a time.
//
// # Trust
//
// Front-end and guest are hostile until checked. Each message passes one table
// of legal sizes, descriptor counts and negotiated features (guard.go) before
// its handler runs. Whatever the guest chooses (ring size, addresses,
// descriptors) is only looked at when the ring starts, and can then break no
// more than the ring. Files behind guest memory must be long enough when they
// are mapped; one that is truncated later breaks the rings that touch it and
// not the process. Kick, call and error descriptors must be eventfds or pipes
// and are made non-blocking.
//
// A front-end that keeps making its descriptors blocking again while they are
// in use can stall its own ring, and by that the end of its own session.
//
// # Failures
//
// A message that fails is answered with a failure if its own reply or
// REPLY_ACK permits; otherwise the session ends, since the front-end would go
// on in error. That includes unknown messages. A ring that cannot start or
// that the guest broke is logged once, reported by its error descriptor, and
// leaves the session alive. Headers of another version, with the reply flag,
// or that announce more than 4 KiB, and more descriptors than any message can
// have, end the session at once.
//
// # Goroutines
//
// Each session has a goroutine, in which Serve or ServeConn waits for its end. It
// owns all session state, without locks. Each running ring has a goroutine, which waits
// in poll(2) and shares a mutex with the session goroutine (ring.go says who
// holds it when). The request path allocates nothing.
//
// # Choices where the spec leaves one
//
//   - A ring starts when it is enabled and has its kick descriptor, and looks
//     for work at once: its kick may have gone to an earlier back-end.
//   - GET_VRING_BASE lets the request in flight finish, and drops the kick
//     descriptor. SET_STATUS 0 and RESET_DEVICE stop all rings likewise.
//   - SET_VRING_KICK without a descriptor (polling) is refused.
//   - A second SET_OWNER is another device on the same connection, as QEMU makes
//     by device_del and device_add: rings stop, and memory table, dirty log and
//     in-flight area are forgotten.
//   - RESET_OWNER does nothing, as recommended. SET_LOG_FD is accepted, and the
//     descriptor closed: signalling it is optional.
//   - In-flight tracking serves split rings. For packed rings GET_INFLIGHT_FD
//     declines with a size of zero.
//   - Requests of a ring are served strictly in order, one at a time.
package vhostuser
