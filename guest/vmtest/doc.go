// SPDX-License-Identifier: Apache-2.0

// Package vmtest has no code. Its tests boot virtual machines with a vTPM and
// check what a guest, its kernel and its TPM tools see: in daily use, over
// resets and power cycles, while parts of the host side die, and with hot-plug.
//
// HWVTPM_TEST_VM=1 switches them on; `make test-vm` does that. A machine's
// console and the programs' logs are kept as the test's artifacts.
package vmtest
