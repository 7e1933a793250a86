// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// command builds a command with an authorization area of raw bytes, or with
// none if auth is nil.
func command(code uint32, handles int, auth []byte, params ...byte) []byte {
	b := make([]byte, tpmHeaderSize, 64)
	binary.BigEndian.PutUint16(b, tagNoSessions)
	binary.BigEndian.PutUint32(b[6:], code)
	b = append(b, make([]byte, 4*handles)...)
	if auth != nil {
		binary.BigEndian.PutUint16(b, tagSessions)
		b = binary.BigEndian.AppendUint32(b, uint32(len(auth)))
		b = append(b, auth...)
	}
	b = append(b, params...)
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	return b
}

var (
	authPW      = []byte{0x40, 0, 0, 9, 0, 0, 0, 0, 0}
	authPWLong  = []byte{0x40, 0, 0, 9, 0, 2, 1, 2, 0, 0, 3, 'a', 'b', 'c'}
	authSession = []byte{0x02, 0, 0, 0, 0, 0, 0, 0, 0}
	authHuge    = []byte{0x40, 0, 0, 9, 0xff, 0xff, 0, 0, 0}
)

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func TestClassify(t *testing.T) {
	const getRandom, pcrExtend, sign, startAuth, unknown = 0x17b, 0x182, 0x15d, 0x176, 0xffff
	for _, tc := range []struct {
		name string
		cmd  []byte
		want class
	}{
		{"no sessions", command(getRandom, 0, nil, 0, 8), classPure},
		{"password", command(pcrExtend, 1, authPW), classJournal},
		{"long password", command(sign, 1, authPWLong, 1, 2, 3), classPure},
		{"two passwords", command(pcrExtend, 1, join(authPW, authPWLong)), classJournal},
		{"session", command(pcrExtend, 1, authSession), classFull},
		{"password and session", command(sign, 1, join(authPW, authSession)), classFull},
		{"audit session on GetRandom", command(getRandom, 0, authSession, 0, 8), classFull},
		{"changes sessions", command(startAuth, 2, nil), classFull},
		{"unknown", command(unknown, 0, nil), classFull},
		{"nonce beyond the area", command(pcrExtend, 1, authHuge), classFull},
		{"area cut short", command(pcrExtend, 1, authPW[:7]), classFull},
		{"area beyond the command", command(pcrExtend, 1, authPW)[:20], classFull},
		{"no area", command(pcrExtend, 1, authPW)[:13], classFull},
		{"header only", command(getRandom, 0, nil), classPure},
		{"too short", []byte{0x80, 1}, classFull},
		{"empty", nil, classFull},
	} {
		if got := classify(tc.cmd); got != tc.want {
			t.Errorf("%s: class %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestKnownCommands holds the table against go-tpm's names, since a wrong
// number in it would be a wrong class for another command.
func TestKnownCommands(t *testing.T) {
	want := map[class][]tpm2.TPMCC{
		classPure: {
			tpm2.TPMCCGetCapability, tpm2.TPMCCGetRandom, tpm2.TPMCCGetTestResult, tpm2.TPMCCTestParms,
			tpm2.TPMCCReadClock, tpm2.TPMCCReadPublic, tpm2.TPMCCNVReadPublic, tpm2.TPMCCNVRead,
			tpm2.TPMCCPCRRead, tpm2.TPMCCECCParameters, tpm2.TPMCCPolicyGetDigest, tpm2.TPMCCSign,
			tpm2.TPMCCVerifySignature, tpm2.TPMCCRSADecrypt, tpm2.TPMCCRSAEncrypt, tpm2.TPMCCECDHZGen,
			tpm2.TPMCCECDHKeyGen, tpm2.TPMCCUnseal, tpm2.TPMCCHMAC, tpm2.TPMCCEncryptDecrypt,
			tpm2.TPMCCEncryptDecrypt2, tpm2.TPMCCHash, tpm2.TPMCCQuote, tpm2.TPMCCCertify,
			tpm2.TPMCCCertifyCreation, tpm2.TPMCCGetTime, tpm2.TPMCCCreate, tpm2.TPMCCActivateCredential,
			tpm2.TPMCCMakeCredential,
		},
		classJournal: {
			tpm2.TPMCCPCRExtend, tpm2.TPMCCPCREvent, tpm2.TPMCCPCRReset, tpm2.TPMCCFlushContext,
			tpm2.TPMCCContextSave, tpm2.TPMCCContextLoad, tpm2.TPMCCLoad, tpm2.TPMCCPolicyAuthValue,
			tpm2.TPMCCPolicyCommandCode, tpm2.TPMCCPolicyOR, tpm2.TPMCCPolicyPCR, tpm2.TPMCCPolicyPassword,
		},
	}
	n := 0
	for c, codes := range want {
		for _, code := range codes {
			n++
			if k, ok := knownCommands[uint32(code)]; !ok || k.class != c {
				t.Errorf("command %#x has class %d, want %d", uint32(code), k.class, c)
			}
		}
	}
	if n != len(knownCommands) {
		t.Errorf("the table has %d commands, this test %d", len(knownCommands), n)
	}
	for _, code := range []tpm2.TPMCC{tpm2.TPMCCSetCommandCodeAuditStatus, tpm2.TPMCCCommit, tpm2.TPMCCECEphemeral} {
		if !needsExact(command(uint32(code), 0, nil)) {
			t.Errorf("command %#x does not make the TPM exact", uint32(code))
		}
	}
}

// FuzzClassify: no command makes it panic, and one with a session that is no
// password is never cheap.
func FuzzClassify(f *testing.F) {
	f.Add(command(0x182, 1, authPW))
	f.Add(command(0x15d, 1, join(authPW, authSession)))
	f.Add(command(0x17b, 0, nil, 0, 8))
	f.Fuzz(func(t *testing.T, cmd []byte) {
		c := classify(cmd)
		if c == classFull {
			return
		}
		if binary.BigEndian.Uint16(cmd) == tagSessions {
			off := tpmHeaderSize + 4*int(knownCommands[commandCode(cmd)].handles) + 4
			if size := binary.BigEndian.Uint32(cmd[off-4:]); size > 0 && binary.BigEndian.Uint32(cmd[off:]) != rsPW {
				t.Fatalf("%x is class %d with a session", cmd, c)
			}
		}
	})
}
