// SPDX-License-Identifier: Apache-2.0

// Package programs builds programs of this module for the tests of a package
// that runs them, such as a card.
package programs
