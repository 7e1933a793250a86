// SPDX-License-Identifier: Apache-2.0

// Package lab runs real virtual machines with a vTPM, for the VM tests and the
// demo.
//
// # Parts
//
// Env knows where the fetched things (fetch.sh) and the built programs are. A
// Rig is one virtual machine's home: a short-named folder for its sockets, the
// folder of its logs, and the TPM's state, which outlives the machine's power.
// From a Rig one starts a Backend (vhost-user-vtpm), a Swtpm (a peer, on QEMU's
// tpm-emulator face) and a VM (QEMU). Rig.Close ends whatever still runs.
//
// # Time
//
// Most machines that run tests have no hardware virtualization; QEMU's TCG then
// emulates the processor, several times slower. Env.Accel says which is used,
// HWVTPM_ACCEL=tcg or kvm overrides the choice, and Env.Patience scales every
// deadline. No deadline is a measurement: each only turns a hang into a failure.
//
// # Early boots
//
// Under TCG a machine very rarely dies or hangs in its first seconds, before
// anything of this project runs. Rig.Boot therefore tries a second time, and
// reports that it did.
//
// # Environment
//
//	HWVTPM_CACHE       the cache folder, default .cache in the work tree
//	HWVTPM_ACCEL       tcg or kvm
//	HWVTPM_TEST_VM=1   run the tests that boot virtual machines
//	HWVTPM_TEST_ROOT=1 run the tests that need root or other programs
package lab
