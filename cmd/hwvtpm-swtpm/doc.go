// SPDX-License-Identifier: Apache-2.0

// Command hwvtpm-swtpm takes swtpm's place. Under the names swtpm, swtpm_setup
// and swtpm_ioctl it understands the command lines that libvirt and people's
// scripts give to these programs, and the TPM behind them is a slot of a
// coprocessor: of coprocd's card, or without one a simulated card of its own in
// the state directory.
//
// What of swtpm's command line it takes, what it refuses, and how libvirt is
// pointed at it, is in docs/libvirt.md. An option that it can't keep its word on
// is refused by name.
package main
