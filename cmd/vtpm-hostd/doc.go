// SPDX-License-Identifier: Apache-2.0

// Vtpm-hostd is the management module of a host: it ties the host's coprocessor to
// the host's TPM, and that to the cloud's authority, and answers guests, backends and
// operators. docs/hostd.md says how it is run.
//
// The program keeps the TLS key by which the host speaks to the authority. All other
// keys stay where they are made: in the host's TPM and in the card.
package main
