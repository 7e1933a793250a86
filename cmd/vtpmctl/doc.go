// SPDX-License-Identifier: Apache-2.0

// Vtpmctl manages the slots of a coprocessor card: makes, lists, parks, locks,
// copies and destroys them, shows what the card vouches for, and gives a raw
// pipe to the TPM in a slot. Run it with --help for its commands.
//
// Rules of its output: what was asked for goes to stdout, as a table or, with
// --json, for programs; all else goes to stderr. Nothing secret is printed:
// access keys are named by their files.
package main
