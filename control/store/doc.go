// SPDX-License-Identifier: Apache-2.0

// Package store is what the control server knows: hosts, machines, certificates,
// tokens, challenges, and who may enrol.
//
// A Store is small, so that it can be a file or a cluster: tables of keys with
// values, and transactions that see one state and apply as a whole. What a
// record means is in Table and in the records of this package, the same for
// every Store. Package bolt has one in a file; package storetest has the tests
// that every Store must pass.
package store
