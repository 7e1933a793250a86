// SPDX-License-Identifier: Apache-2.0

// Package vfiouser speaks the vfio-user protocol, versions 0.0 and 0.1, on both
// sides: a [Client] that uses a PCI function, and [Serve], which serves one.
//
// The reference is QEMU's docs/interop/vfio-user.rst, "the spec" in comments,
// and what QEMU 11.1.3 does as a client. All integers are in the host's byte
// order. Of the optional parts there are NO_REPLY commands; there is no
// twin-socket mode, no migration, no mapping of device regions, and no DMA by
// messages: a server reaches only memory that came with a descriptor.
//
// # Trust
//
// Neither side trusts the other. A message is read header first into a buffer
// of fixed size, its descriptors are owned from that moment, and one table
// (guard.go) says which sizes and how many descriptors are legal before a
// handler sees it. What breaks the framing ends the session; what is only
// wrong is answered with an error.
package vfiouser
