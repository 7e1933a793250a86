// SPDX-License-Identifier: Apache-2.0

// Testrun runs the project's test tiers and counts what really ran.
//
//	testrun unit|plain|root|vm|fuzz ...
//
// The unit tier is every package under the race detector, with no gate open. The
// plain tier is the same without the race detector, which some tests (such as
// those that count allocations) cannot run under.
// The root and vm tiers are the packages whose tests look at the tier's
// environment variable, with that variable set, one package at a time. If another
// tier ran before, they are those tests of the packages that the shut gate kept
// from something; the others ran already. The fuzz tier is every fuzz target for
// the time FUZZTIME.
//
// A test that is skipped in one tier because its gate is shut counts as what it
// did in the tier that opened it. The last line is
//
//	N passed, N failed, N skipped
//
// below the names of what failed. The exit code is 1 if anything failed or nothing
// ran. With all tiers given, tests that were skipped in all of them are named there
// as well, unless the reason is one of allowedSkips, and with CI=true they fail the
// run: in CI nothing that the machine can do is left out.
package main
