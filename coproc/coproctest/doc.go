// SPDX-License-Identifier: Apache-2.0

// Package coproctest is the conformance suite for cards: every driver of
// package coproc, simulated or hardware, passes the same tests.
//
// A driver's test is one call:
//
//	func TestConformance(t *testing.T) {
//		coproctest.Run(t, func(t *testing.T) coproc.Device { ... })
//	}
package coproctest
