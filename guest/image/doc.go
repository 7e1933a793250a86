// SPDX-License-Identifier: Apache-2.0

// Package image builds the initramfs of the test and demo virtual machines.
//
// An image is u-root's busybox (init, shell and the small commands), the agent
// as u-root's uinit, and kernel modules that the agent loads at boot. Programs
// finds the shared libraries of whatever else a guest is to run. Extend lays an
// archive of its own behind an image, such as TPMTools: Debian's tpm2-tools, which
// are larger than all the rest.
//
// Two caches make it quick. The busybox, which takes some twenty seconds to
// compile, is kept in a cache folder and built again only for other commands,
// another u-root or another Go. The image itself has a file beside it with the
// hash of everything that went in, and is left alone while that is the same.
//
// The image is an uncompressed newc archive: QEMU copies it in a moment, while
// unpacking under emulation would take longer than the boot.
package image
