// SPDX-License-Identifier: Apache-2.0

// Vhost-user-vtpm gives one virtual machine a TPM 2.0 on a virtio ring. It
// follows QEMU's conventions for vhost-user backend programs (QEMU,
// docs/interop/vhost-user, "Backend program conventions").
//
// It holds no secrets: the TPM lives in a coprocessor, with --coproc sim:DIR
// in a child process. Run it with --help for its flags; docs/operations.md
// tells how to start it with QEMU and what to do when something dies.
package main
