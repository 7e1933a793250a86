// SPDX-License-Identifier: Apache-2.0

// Package gates has the UNIX sockets on which a host's manager is asked: one for each
// machine's guest, and those for backends and for operators. A gate says who the
// caller is and bounds what a caller can have: so many connections, and so many
// bytes. What is asked is for a door.Handler.
package gates
