// SPDX-License-Identifier: Apache-2.0

//go:build race

package vhostuser_test

// raceEnabled: the race detector allocates on its own.
const raceEnabled = true
