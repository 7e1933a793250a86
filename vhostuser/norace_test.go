// SPDX-License-Identifier: Apache-2.0

//go:build !race

package vhostuser_test

const raceEnabled = false
