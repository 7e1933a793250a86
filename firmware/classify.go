// SPDX-License-Identifier: Apache-2.0

package firmware

import "encoding/binary"

// class says what must be written before a command's response leaves. It does
// not matter for commands that change the permanent state: these always get a
// durable write and a checkpoint.
type class uint8

const (
	// classFull: the whole volatile state is written. The default, and what
	// every command with a session is, since sessions roll their nonces.
	classFull class = iota
	// classJournal: the command is deterministic, so the command itself is
	// written and a restore runs it again.
	classJournal
	// classPure: nothing is written, because nothing changes but the random
	// generator (stirred after a restore), the clock (which libtpms carries
	// over by the host's) and the object slots a command uses inside.
	classPure
)

// known describes a command that is not simply classFull.
type known struct {
	class   class
	handles uint8 // handles before the authorization area
}

// knownCommands lists the commands that may be cheap, by TPM_CC (Part 2,
// 6.5.2). A command belongs here only if Part 3 says of it what its class
// demands; when in doubt it is left out.
var knownCommands = map[uint32]known{
	// Part 3, 10 and 16: state of the TPM itself, read only. SelfTest is not
	// here: it records which algorithms were tested.
	0x17a: {classPure, 0}, // GetCapability
	0x17b: {classPure, 0}, // GetRandom
	0x17c: {classPure, 0}, // GetTestResult
	0x18a: {classPure, 0}, // TestParms
	0x181: {classPure, 0}, // ReadClock

	// Reading public things.
	0x173: {classPure, 1}, // ReadPublic
	0x169: {classPure, 1}, // NV_ReadPublic
	0x14e: {classPure, 2}, // NV_Read: see countsPIN
	0x17e: {classPure, 0}, // PCR_Read
	0x178: {classPure, 0}, // ECC_Parameters
	0x189: {classPure, 1}, // PolicyGetDigest

	// Computing with a loaded object that stays as it is. A wrong password
	// counts in the permanent state, and so fires the store.
	0x15d: {classPure, 1}, // Sign
	0x177: {classPure, 1}, // VerifySignature
	0x159: {classPure, 1}, // RSA_Decrypt
	0x174: {classPure, 1}, // RSA_Encrypt
	0x154: {classPure, 1}, // ECDH_ZGen
	0x163: {classPure, 1}, // ECDH_KeyGen
	0x15e: {classPure, 1}, // Unseal
	0x155: {classPure, 1}, // HMAC
	0x164: {classPure, 1}, // EncryptDecrypt
	0x193: {classPure, 1}, // EncryptDecrypt2
	0x17d: {classPure, 0}, // Hash
	0x158: {classPure, 1}, // Quote
	0x148: {classPure, 2}, // Certify
	0x14a: {classPure, 2}, // CertifyCreation
	0x14c: {classPure, 2}, // GetTime
	0x153: {classPure, 1}, // Create: gives the object out, loads nothing
	0x147: {classPure, 2}, // ActivateCredential
	0x168: {classPure, 1}, // MakeCredential

	// Part 3, 22: the result follows from the PCR and the command alone.
	0x182: {classJournal, 1}, // PCR_Extend
	0x13c: {classJournal, 1}, // PCR_Event
	0x13d: {classJournal, 1}, // PCR_Reset

	// Part 3, 28, and Load: what a resource manager, such as the one in the
	// Linux kernel, puts around every command. Handles and contexts follow
	// from the slots and counters in the volatile state.
	0x165: {classJournal, 0}, // FlushContext
	0x162: {classJournal, 1}, // ContextSave
	0x161: {classJournal, 0}, // ContextLoad
	0x157: {classJournal, 1}, // Load

	// Part 3, 23: policy assertions that look at neither clock nor nonce.
	0x16b: {classJournal, 1}, // PolicyAuthValue
	0x16c: {classJournal, 1}, // PolicyCommandCode
	0x171: {classJournal, 1}, // PolicyOR
	0x17f: {classJournal, 1}, // PolicyPCR
	0x18c: {classJournal, 1}, // PolicyPassword
}

// makesKey tells whether a command may make an RSA key. Nothing else takes so long
// that libtpms looks for a cancel.
func makesKey(cmd []byte) bool {
	switch commandCode(cmd) {
	case 0x131, 0x153, 0x191: // CreatePrimary, Create, CreateLoaded
		return true
	}
	return false
}

// needsExact tells whether a command, once it succeeded, makes every later
// command of this TPM classFull, for good:
//
//   - TPM2_SetCommandCodeAuditStatus: from then on any command may extend the
//     audit digest.
//   - TPM2_Commit and TPM2_EC_Ephemeral: a signature may use up a one-time
//     secret of the TPM, and to forget that over a crash would give away the
//     key (Part 1, C.2, "ECDAA").
//
// The generator is then saved after every command and needs no stir after a
// restore, which itself would show in the audit digest.
func needsExact(cmd []byte) bool {
	switch commandCode(cmd) {
	case 0x140, 0x18b, 0x18e: // SetCommandCodeAuditStatus, Commit, EC_Ephemeral
		return true
	}
	return false
}

// classify gives the class of a command for a TPM that is not exact. A
// malformed command may get any class: the TPM refuses it, and a refused
// command needs nothing written.
func classify(cmd []byte) class {
	k, ok := knownCommands[commandCode(cmd)]
	if !ok {
		return classFull
	}
	switch binary.BigEndian.Uint16(cmd) {
	case tagNoSessions:
		return k.class
	case tagSessions:
		if !countsPIN(cmd) && passwordsOnly(cmd[tpmHeaderSize:], int(k.handles)*4) {
			return k.class
		}
	}
	return classFull
}

// countsPIN tells whether a command may use the password of an NV index, which
// a PIN index counts, right or wrong. The count is volatile if the index is
// orderly, and must not start over with the worker (Part 1, "PIN Pass" and "PIN
// Fail" indices). No command in knownCommands but NV_Read can do that.
func countsPIN(cmd []byte) bool {
	const ccNVRead, nvIndex = 0x14e, 0x01 // handle type TPM_HT_NV_INDEX
	return commandCode(cmd) == ccNVRead && (len(cmd) <= tpmHeaderSize || cmd[tpmHeaderSize] == nvIndex)
}

// passwordsOnly tells whether every entry of the authorization area at off is
// a password (Part 1, "Authorization Area"; Part 2, TPMS_AUTH_COMMAND).
//
//	0            4              8          8+n   8+n+1
//	+------------+--------------+----------+-----+--------------+
//	| area size  | handle       | nonce 2B | attr| hmac 2B      | ... parameters
//	+------------+--------------+----------+-----+--------------+
func passwordsOnly(b []byte, off int) bool {
	be := binary.BigEndian
	if len(b) < off+4 {
		return false
	}
	size := uint64(be.Uint32(b[off:]))
	b = b[off+4:]
	if size > uint64(len(b)) {
		return false
	}
	for b = b[:size]; len(b) > 0; {
		if len(b) < 6 || be.Uint32(b) != rsPW {
			return false
		}
		n := 6 + int(be.Uint16(b[4:])) + 1 // up to the second size
		if len(b) < n+2 {
			return false
		}
		n += 2 + int(be.Uint16(b[n:]))
		if len(b) < n {
			return false
		}
		b = b[n:]
	}
	return true
}
