// SPDX-License-Identifier: Apache-2.0

// Package broker is a card's face on a UNIX socket of type SOCK_SEQPACKET. Each
// packet of a client is one submission of docs/coprocessor-abi.md's admin
// commands, and each is answered by one packet with its completion; a slot that
// was opened comes along as two descriptors. TPM commands do not pass here: they
// go over those descriptors straight to the slot.
//
// # Who may do what
//
// The kernel says who is connected (SO_PEERCRED, SO_PEERGROUPS of unix(7)), as of
// the time of connect. From that a [Policy] tells administrators from others;
// what either may do, and that a slot opens only to its access key, is the
// card's affair.
//
// # What a client can do to others
//
// Nothing more than its share: a client that sends what is no submission loses
// its connection, one that says nothing at first or does not take its answers
// loses it after a while, and one that sends faster than it is served waits.
// Users have a limit of connections each and all together, and administrators
// do not count among them.
//
// # Goroutines
//
// One for each connection. A session is used by its connection alone.
package broker
