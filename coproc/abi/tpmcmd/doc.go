// SPDX-License-Identifier: Apache-2.0

// Package tpmcmd sorts TPM commands, responses and latencies into the few
// kinds that people want to see counted. Both sides of the mailbox count with
// it, so that what the host sees and what the card sees can be compared.
//
// Everything here looks at bytes of a guest: nothing is assumed about their
// length or content. All functions are pure and do not allocate.
package tpmcmd
