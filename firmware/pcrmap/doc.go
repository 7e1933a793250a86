// SPDX-License-Identifier: Apache-2.0

// Package pcrmap gives a TPM that runs other values of PCR 0-7: those of the host.
//
// No TPM command does that. So the volatile state of libtpms is taken out, the
// PCRs are replaced in it, and it is put back, between two commands. What is
// loaded, open and counted by the TPM stays as it is, but for the counter of PCR
// changes, which goes up by one: a policy session that has looked at the PCRs
// before must not stand for those after.
//
// # How it is known to be right
//
// The state is libtpms' own affair, and its integrity is a plain SHA-1. So nothing
// is taken on trust:
//
//   - The form is checked strictly, byte for byte: see state.go. A form that is
//     not known, in whatever way, is [ErrRefused], never a guess. Offsets are found,
//     not assumed, and there must be exactly one place that fits.
//   - What was found must be what TPM2_PCR_Read gives: all 24 PCRs of all banks in
//     use, and the counter.
//   - After the state is back, all of them are read again, and must be what was
//     wanted. If not, the untouched state goes back in.
//   - [SelfTest] does all of it with a TPM that is thrown away, so that a libtpms
//     that is not understood is found before a guest depends on it.
//
// The reads leave nothing behind: the state is put back once more after them.
//
// A guest decides about much of what is in the state. It cannot plant a second
// place that fits: that takes 4634 bytes in a row, with a fixed word every 193,
// and the longest that a guest can fill are 512 (orderly NV memory). If
// it could, the result would be a refusal.
//
// # What is not touched
//
// The permanent state. It has a copy of the PCRs and of the counter after
// TPM2_Shutdown(STATE), for TPM2_Startup(STATE). But every Startup is followed by
// [Apply], before anything else runs, so that copy is never seen. To look for it
// would be worse than to leave it: 2 KiB of NV memory are the guest's to fill, and
// two neighbours of that size can look like it.
package pcrmap
