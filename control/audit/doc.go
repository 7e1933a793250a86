// SPDX-License-Identifier: Apache-2.0

// Package audit keeps a record of what was done that can't be changed unnoticed:
// a file of JSON lines, each with the SHA-256 of the line before.
//
//	{"seq":1,"prev":"000…","time":"…","event":"init"}
//	{"seq":2,"prev":"9f2…","time":"…","event":"issued","kind":"host","name":"h1",…}
//
// A changed, removed or inserted line breaks the chain at the next one. Lines cut
// off at the end are found by who kept the Head: the last line's number and hash.
package audit
