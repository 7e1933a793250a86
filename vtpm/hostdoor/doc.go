// SPDX-License-Identifier: Apache-2.0

// Package hostdoor is how a process that runs a machine's TPM device asks its
// host's daemon (vtpm-hostd) what the host's hardware TPM says: which PCRs to map
// into the machine's TPM, and which evidence of the host's boot to put beside them.
//
// [Host] does what a device needs of that. The device links it, so it has nothing but
// the standard library, a logger, package door and package coproc.
package hostdoor
