// SPDX-License-Identifier: Apache-2.0

// Package virt runs a libvirt host of its own for tests: Debian 12's libvirtd, a
// coprocd, the hook that starts vTPM backends, and hwvtpm-swtpm in swtpm's place,
// all of it in namespaces that end with the test. The machine's own libvirt, users
// and folders are not touched.
//
// The host sees the work tree's cache, copies of its programs, and the folder that
// it shares with the test, under /mnt, so that QEMU and the backends can run as
// users of their own wherever the work tree is. Nothing of it is entered from
// outside: libvirt's socket, all logs and the TPMs' files are in the shared folder.
// The host does not see the machine's own QEMU modules: another QEMU would try to
// load them, and die.
package virt
