// SPDX-License-Identifier: Apache-2.0

// Package houserules has no code. Its tests keep the rules that no compiler
// checks: which room may import which, where unsafe and cgo may be, and what
// every tracked file looks like. `make check` runs them.
package houserules
