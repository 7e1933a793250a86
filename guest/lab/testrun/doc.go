// SPDX-License-Identifier: Apache-2.0

// Testrun runs the project's test tiers and counts what really ran.
//
//	testrun unit|plain|root|vm|fuzz ...
//
// The unit tier is every package under the race detector, with no gate open. The
// plain tier is the same without the race detector, which some tests (such as
// those that count allocations) cannot run under.
// The root and vm tiers are the packages whose tests look at the tier's
// environment variable, with that variable set, one package at a time. The fuzz
// tier is every fuzz target for the time FUZZTIME.
//
// A test that is skipped in one tier because its gate is shut counts as what it
// did in the tier that opened it. The last line is
//
//	N passed, N failed, N skipped
//
// and the exit code is 1 if anything failed or nothing ran. With CI=true and all
// tiers given, a test that was skipped in all of them fails the run as well,
// unless its reason is one of allowedSkips: in CI nothing that the machine can do
// is left out.
package main
