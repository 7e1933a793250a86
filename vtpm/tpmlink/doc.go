// SPDX-License-Identifier: Apache-2.0

// Package tpmlink opens a TPM by its address: a device of the kernel, or a TPM
// behind a socket, such as swtpm's. Programs that share a TPM of the second kind
// take turns.
package tpmlink
