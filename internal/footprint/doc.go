// SPDX-License-Identifier: Apache-2.0

// Package footprint gives back what only the start of a program needed: pages of its
// own file and its libraries', which come from the page cache if they are used again.
// It is for the programs of which a host runs one for each virtual machine.
package footprint
