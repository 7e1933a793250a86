// SPDX-License-Identifier: Apache-2.0

// Package hostdoortest is a host's daemon for tests, on a real socket, with the PCRs
// of a host that is made up.
package hostdoortest
