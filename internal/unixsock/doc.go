// SPDX-License-Identifier: Apache-2.0

// Package unixsock is what the ends of UNIX sockets in this module share:
// messages that carry descriptors (SCM_RIGHTS, unix(7)), who is on the other
// end (SO_PEERCRED), and servers that serve one peer at a time.
//
// The kernel installs every descriptor of a message in the receiving process,
// wanted or not. So whoever receives owns them at once, also when the message
// turns out to be of no use: each function here says whose they are.
//
// No function keeps state; calls on one socket are as safe for concurrent use as
// those of the net package.
package unixsock
