// SPDX-License-Identifier: Apache-2.0

// Package bench measures hwvtpm against swtpm and writes docs/benchmarks.md.
//
// # What is compared
//
// Both sides are measured in the same run and in turns, so that what else the
// machine does hits both: rounds of batches, one contestant after the other.
// A figure is the median over the rounds of each round's percentile. All of
// this is wall-clock time as a client sees it; nothing is subtracted.
//
//   - guest: raw commands on /dev/tpm0 of six virtual machines with the same
//     kernel and the same QEMU, of which only the one being measured runs.
//   - host: the same commands without a virtual machine. Our side goes from the
//     kick to the call of a real vhost-user session, swtpm's is one write and
//     one read on its UNIX socket, which is less than QEMU does with it.
//   - attestation: what a machine, its host and the authority do for evidence
//     of all layers, and what go-attestation does for one of them.
//   - start, memory, NV writes, allocations.
//
// # Contestants
//
// A target is a TPM as a client reaches it. Besides the two that are compared
// there are the slot (our coprocessor driver and engine process, without the
// ring) and libtpms called in a loop by a C program that is compiled on the
// spot. Differences between them give the share of each stage.
//
// # Verdicts
//
// Targets are fixed in targets.go. A missed one is reported as missed, with
// the stage that costs most as its cause, taken from the figures of the run.
package bench
