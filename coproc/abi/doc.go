// SPDX-License-Identifier: Apache-2.0

// Package abi is the mailbox format between a host driver and a card.
//
// # Messages
//
// The host sends submissions, the card answers each with one completion. Both
// are a 32-byte header and a payload of at most [MaxPayload] bytes. All
// integers are little-endian, as on a PCIe bus; the TPM bytes inside a payload
// stay big-endian, as the TCG writes them. Reserved fields are zero, and a
// message with a reserved field that is not zero is refused. Over a socket
// each message is exactly one SOCK_SEQPACKET packet; on a card a submission
// is an entry of a queue ([SubmissionEntry]) and the payload a buffer beside
// it, as in NVMe; registers.go, entry.go and admin.go describe the PCI function
// that has these queues, and docs/coprocessor-abi.md how to drive it.
//
// # Ordering
//
// A slot executes one submission at a time, in the order they were sent, and
// completes in that order. A driver keeps one submission in flight per slot.
//
// # Sequence numbers and exactly-once execution
//
// The driver numbers [OpExecute] and [OpHash] submissions. A number is greater
// than every number used before for this slot; [Identity] and the answer to power-on
// tell the last one the card has on record. A driver that lost the completion
// (the card's worker died) sends the same submission with the same number
// again. If the card had finished it, the completion carries the recorded
// response and [FlagReplayed], and the command is not executed again. A
// number below the record is refused with [StatusSequence].
//
// # Cancellation
//
// Cancellation runs beside the queue, on a second channel, so that it can
// overtake: a [Control] message names the sequence number to cancel. It only
// marks the command: the command still completes, in order, with whatever
// TPM response results, usually TPM_RC_CANCELED. A cancel for a number that is
// not running does nothing. There is no answer to a cancel. On a PCI function
// the second channel is the register [DoorbellCancel].
//
// # Status and response code
//
// A [Status] tells what the card did with a submission. A TPM response code
// is data to the mailbox: a TPM command that the TPM refuses completes with
// [StatusOK].
//
// # Versions
//
// The first submission is [OpIdentify] with the range of versions the driver
// speaks. The card answers with the one version that both will use from then
// on, or with [StatusBadVersion]. This is version 1.
package abi
