// SPDX-License-Identifier: Apache-2.0

// Package vsock has stream sockets between virtual machines and their host: AF_VSOCK
// (vsock(7)), which the standard library has not.
//
// An address is a context ID and a port. The host is CIDHost for its guests, and a
// guest's CID is what its configuration says; the kernel vouches for the CID of
// who connects, as for the user of who connects to a UNIX socket: who is root in
// the guest can't have another one.
package vsock
