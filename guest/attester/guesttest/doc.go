// SPDX-License-Identifier: Apache-2.0

// Package guesttest has a machine with a real TPM, and a host behind a door, for the
// tests of what runs in a machine. Tests that use it run in controltest.Main.
package guesttest
