// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"testing"
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
		name  string
		cmd   []byte
		audit bool
		want  class
	}{
		{"no sessions", command(getRandom, 0, nil, 0, 8), false, classPure},
		{"password", command(pcrExtend, 1, authPW), false, classJournal},
		{"long password", command(sign, 1, authPWLong, 1, 2, 3), false, classPure},
		{"two passwords", command(pcrExtend, 1, join(authPW, authPWLong)), false, classJournal},
		{"session", command(pcrExtend, 1, authSession), false, classFull},
		{"password and session", command(sign, 1, join(authPW, authSession)), false, classFull},
		{"audit session on GetRandom", command(getRandom, 0, authSession, 0, 8), false, classFull},
		{"changes sessions", command(startAuth, 2, nil), false, classFull},
		{"unknown", command(unknown, 0, nil), false, classFull},
		{"audit list", command(getRandom, 0, nil, 0, 8), true, classFull},
		{"audit list, extend", command(pcrExtend, 1, authPW), true, classFull},
		{"nonce beyond the area", command(pcrExtend, 1, authHuge), false, classFull},
		{"area cut short", command(pcrExtend, 1, authPW[:7]), false, classFull},
		{"area beyond the command", command(pcrExtend, 1, authPW)[:20], false, classFull},
		{"no area", command(pcrExtend, 1, authPW)[:13], false, classFull},
		{"header only", command(getRandom, 0, nil), false, classPure},
		{"too short", []byte{0x80, 1}, false, classFull},
		{"empty", nil, false, classFull},
	} {
		if got := classify(tc.cmd, tc.audit); got != tc.want {
			t.Errorf("%s: class %d, want %d", tc.name, got, tc.want)
		}
	}
}

// FuzzClassify: no command makes it panic, and one with a session that is no
// password is never cheap.
func FuzzClassify(f *testing.F) {
	f.Add(command(0x182, 1, authPW), false)
	f.Add(command(0x15d, 1, join(authPW, authSession)), false)
	f.Add(command(0x17b, 0, nil, 0, 8), true)
	f.Fuzz(func(t *testing.T, cmd []byte, audited bool) {
		c := classify(cmd, audited)
		if c == classFull {
			return
		}
		if audited {
			t.Fatalf("%x is class %d under a command audit list", cmd, c)
		}
		if binary.BigEndian.Uint16(cmd) == tagSessions {
			off := tpmHeaderSize + 4*int(knownCommands[commandCode(cmd)].handles) + 4
			if size := binary.BigEndian.Uint32(cmd[off-4:]); size > 0 && binary.BigEndian.Uint32(cmd[off:]) != rsPW {
				t.Fatalf("%x is class %d with a session", cmd, c)
			}
		}
	})
}
