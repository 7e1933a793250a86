// SPDX-License-Identifier: Apache-2.0

// Hwvtpm-libvirt-hook starts and stops the vTPM backend of a libvirt domain. As
// /etc/libvirt/hooks/qemu.d/hwvtpm it acts on domains whose XML names a slot in
// its metadata, and on no others; it prints the XML that such a domain needs; and
// it gives a running machine its TPM anew when the backend has died.
//
// Where systemd runs, a backend is an instance of vhost-user-vtpm@.service.
// Elsewhere it is a child of this program, which stays and starts it again when
// it dies.
//
// docs/libvirt.md tells how it is used.
package main
