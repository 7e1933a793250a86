// SPDX-License-Identifier: Apache-2.0

// Package durable writes small files as a whole: who reads one, also after a crash or a
// power cut, finds what was there before or what was written, and never a part of it.
//
// A write makes NAME.*.tmp beside the file, syncs it, puts it in its place and syncs the
// directory. A crash may leave the former, which nothing reads. Two writes of one file
// at one time are safe, and one of them is last.
package durable
