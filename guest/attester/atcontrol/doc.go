// SPDX-License-Identifier: Apache-2.0

// Package atcontrol lets a guest enrol at the control server itself, without its host
// between. It is apart from package attester, so that what only needs the host's door
// does not link a client of that server.
package atcontrol
