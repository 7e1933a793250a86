// SPDX-License-Identifier: Apache-2.0

// Package coprocdtest is a coprocessor daemon for tests that need no TPM: it
// speaks the admin commands and the slot channel as docs/coprocessor-abi.md and
// docs/slot-channel.md have them, over slots that answer each TPM command with
// the same few bytes. A test can put itself between an answer and its way to
// the client, to play a daemon that is broken or hostile.
package coprocdtest
