// SPDX-License-Identifier: Apache-2.0

// Package memfault makes errors of accesses to mapped memory that is not there any
// more: a peer has made the file behind a mapping shorter, or a device takes no
// access to its BAR. The kernel answers such an access with SIGBUS, which would end
// the process.
//
// What is armed is the calling goroutine alone.
package memfault
