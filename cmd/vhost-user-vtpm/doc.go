// SPDX-License-Identifier: Apache-2.0

// Vhost-user-vtpm gives one virtual machine a TPM 2.0 on a virtio ring. It
// follows QEMU's conventions for vhost-user backend programs (QEMU,
// docs/interop/vhost-user, "Backend program conventions").
//
// It holds no secrets of the TPM, which lives in a coprocessor: with --coproc
// coprocd:SOCKET in a slot of the card that the host's virtual machines share,
// with --coproc sim:DIR in a child process. Run it with --help for its flags; docs/operations.md
// tells how to start it with QEMU and what to do when something dies.
package main
