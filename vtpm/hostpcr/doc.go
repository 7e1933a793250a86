// SPDX-License-Identifier: Apache-2.0

// Package hostpcr reads what a host's hardware TPM says about how the host
// started: PCR 0-7 in every bank, quoted, and held against the firmware's event log.
// What agrees can be mapped into the TPMs of virtual machines
// (coproc.PCRMapper), or be kept beside them as evidence.
//
// # What is believed
//
// The values are TPM2_PCR_Read's, and count only if a quote by the caller's key,
// over the same banks and the caller's nonce, has their digest. A bank can be mapped
// only if the event log replays to it, so that whoever gets the values can be told
// what they mean; [Reading.Map] says of each bank why it cannot. A bank that
// is not mapped is no bank of zeros in the virtual machine: see abi.UnmappedPCR.
//
// # Time
//
// A hardware TPM takes 200 to 600 ms for a quote, and does one thing at a time. So
// callers that ask at once can share a quote (Config.Share): its qualifying data is
// the hash of all their nonces ([Quote.Qualifying]), and each can show that its own is
// in it. Nobody
// gets a quote that was begun before it asked, but by [Host.Recent], which says
// how old one may be.
package hostpcr
