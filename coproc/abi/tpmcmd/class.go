// SPDX-License-Identifier: Apache-2.0

package tpmcmd

import "encoding/binary"

// headerSize is the size of what every command and response starts with, all
// big-endian (TCG TPM 2.0 Part 1, "Command/Response Structure"):
//
//	 0        2                 6                10
//	+--------+-----------------+-----------------+----
//	| tag    | size (all of it)| code            | ...
//	+--------+-----------------+-----------------+----
const headerSize = 10

// Class is what a command is about. The zero value is ClassOther.
type Class uint8

// Classes of commands.
const (
	ClassOther   Class = iota // vendor commands, attached components, nonsense
	ClassRandom               // the random generator
	ClassPCR                  // platform configuration registers
	ClassNV                   // NV indices
	ClassSign                 // signatures: Sign and the attestation commands
	ClassKey                  // objects and their contexts: made, loaded, moved, read
	ClassSession              // sessions, policies, and FlushContext
	ClassCrypto               // computing with a key, or with none
	ClassManage               // the TPM itself: start, stop, tests, hierarchies, clock
)

// Classes is how many there are: those below it are all valid.
const Classes = 9

var classNames = [Classes]string{
	ClassOther:   "other",
	ClassRandom:  "random",
	ClassPCR:     "pcr",
	ClassNV:      "nv",
	ClassSign:    "sign",
	ClassKey:     "key",
	ClassSession: "session",
	ClassCrypto:  "crypto",
	ClassManage:  "manage",
}

// String is a lower-case word, fit for a label of a metric.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[ClassOther]
}

// ClassOf returns the class of a command: ClassOther if it has no whole header
// or its command code is not known.
func ClassOf(cmd []byte) Class {
	if len(cmd) < headerSize {
		return ClassOther
	}
	i := binary.BigEndian.Uint32(cmd[6:]) - firstCode // wraps for codes below
	if i >= uint32(len(classes)) {
		return ClassOther
	}
	return classes[i]
}
