// SPDX-License-Identifier: Apache-2.0

// Package manager is the management module of a host: it ties the card to the
// host's TPM, and that to the cloud's authority, and answers for all virtual
// machines of the host what no single one of them can say. docs/hostd.md describes it
// as its operator sees it.
//
//	authority <- enrol, renew - Manager - certify -> card -> slots
//	                             |   |
//	              host TPM <- quote  +-> guests: certificates, enrolment, evidence
//	                                     backends: PCR 0-7 of the host
//	                                     operators: status
//
// # What it keeps
//
// The host's certificates, and the TLS key by which the host speaks to the
// authority, are files in Config.Dir. The attestation key is the TPM's; the card's is
// the card's. The certificate that the TPM signs for the card and its quote over
// the card's key are made anew at each start, and when the host's certificate was
// renewed: they need no authority. So a host that was enrolled works without one
// until its certificate ends.
//
// # Who may ask for what
//
// A guest's channel belongs to one machine (door.Caller), and nothing is said on it
// of another. On a channel that belongs to nobody, the machine is the one whose
// attestation key signed what came with the request. Evidence is given only for a
// machine's own quote, checked before the host's TPM is asked for one: a quote costs
// a hardware TPM 200 to 600 ms.
//
// # Goroutines
//
// [Manager.Run] does what is done in the background, all other methods may be called
// from any goroutine meanwhile. What they share is in snapshots that are replaced,
// never changed. A command to the card is not cut off when its caller goes away, since
// that would end the connection that all share.
package manager
