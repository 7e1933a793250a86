// SPDX-License-Identifier: Apache-2.0

// Package slot is what all drivers of a card have in common: a [Slot] that
// keeps the promises of coproc.Slot over a [Worker] that may die at any time.
//
// It numbers commands, powers a new worker on with the same run, submits the
// unanswered command again under its number, cancels what takes too long and
// answers in the TPM's place what cannot be executed. A driver adds only how a
// worker is started, reached and ended.
package slot
