// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"errors"
	"strings"
	"testing"
)

// Bytes that are told apart from their neighbours.
var (
	id16    = [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	serial  = [16]byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}
	nonce32 = [32]byte{0: 0x20, 1: 0x21, 31: 0x3f}
	key32   = [32]byte{0: 0x40, 1: 0x41, 31: 0x5f}
)

// The golden bytes of the management of slots.
var (
	goldenSlotCreate = unhex(`
		01000000 09000000  06000000 00000000
		766d2d6100000000 0000000000000000 0000000000000000 0000000000000000
		0000000000000000 0000000000000000 0000000000000000 0000000000000000
		4041000000000000 0000000000000000 0000000000000000 000000000000005f
		0000000000000000 0000000000000000`)
	goldenSlotInfo = unhex(`
		07000000 02000000  0001020304050607 08090a0b0c0d0e0f
		766d2d6100000000 0000000000000000 0000000000000000 0000000000000000
		0000000000000000 0000000000000000 0000000000000000 0000000000000000
		0f000000 06000000  0100000000000000 0200000000000000
		0300000000000000  0400000000000000 0500000000000000 0600000000000000
		39300000 00000000
		4041000000000000 0000000000000000 0000000000000000 000000000000005f
		2021000000000000 0000000000000000 0000000000000000 000000000000003f
		0000000000000000 0000000000000000 0000000000000000 0000000000000000
		0000000000000000`)
	goldenListRequest = unhex(`07000000`)
	goldenChallenge   = unhex(`
		07000000 00000000  0001020304050607 08090a0b0c0d0e0f
		1011121314151617 18191a1b1c1d1e1f
		2021000000000000 0000000000000000 0000000000000000 000000000000003f`)
	goldenSlotRef = unhex(`
		0001020304050607 08090a0b0c0d0e0f
		2021000000000000 0000000000000000 0000000000000000 000000000000003f`)
	goldenProof = unhex(`
		a000000000000000 0000000000000000 0000000000000000 0000000000000000
		0000000000000000 0000000000000000 0000000000000000 00000000000000ff`)
)

var manageCodecs = []codec{
	codecOf("slot create", goldenSlotCreate,
		SlotCreate{Flags: CreateNewIdentity, Keys: KeyRSAEK | KeySRK, Banks: DefaultBanks, Name: "vm-a", AccessKey: key32},
		ParseSlotCreate, AppendSlotCreate),
	codecOf("slot info", goldenSlotInfo,
		SlotInfo{Number: 7, Life: LifeParked, ID: id16, Name: "vm-a", Keys: DefaultKeys, Banks: DefaultBanks,
			Generation: 1, Epoch: 2, Created: 3, LastUsed: 4, Commands: 5, Restarts: 6, WorkerPID: 12345,
			AccessKey: key32, EKNames: nonce32},
		ParseSlotInfo, AppendSlotInfo),
	codecOf("list request", goldenListRequest, ListRequest{From: 7}, ParseListRequest,
		func(dst []byte, r *ListRequest) []byte { return AppendListRequest(dst, *r) }),
	codecOf("challenge", goldenChallenge, Challenge{Number: 7, ID: id16, Serial: serial, Nonce: nonce32},
		ParseChallenge, AppendChallenge),
	codecOf("slot reference", goldenSlotRef, SlotRef{ID: id16, Nonce: nonce32}, ParseSlotRef, AppendSlotRef),
	codecOf("proof", goldenProof, Proof{0: 0xa0, 63: 0xff}, ParseProof,
		func(dst []byte, p *Proof) []byte { return AppendProof(dst, *p) }),
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "0": true, "Vm-1.disk_2": true, strings.Repeat("x", MaxName): true,
		"": false, strings.Repeat("x", MaxName+1): false,
		".": false, "..": false, ".hidden": false, "-v": false, "_x": false,
		"a/b": false, "a b": false, "a\x00": false, "ä": false, "a\n": false, "a\x1b[2J": false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %t, want %t", name, got, want)
		}
	}
}

func TestMalformedManagement(t *testing.T) {
	create := func(c SlotCreate) []byte { return AppendSlotCreate(nil, &c) }
	info := func(i SlotInfo) []byte { return AppendSlotInfo(nil, &i) }
	good := SlotCreate{Banks: DefaultBanks, Name: "x"}
	if _, err := ParseSlotCreate(create(good)); err != nil {
		t.Fatalf("ParseSlotCreate: %v", err)
	}
	for _, tc := range []struct {
		name  string
		parse func([]byte) error
		msg   []byte
	}{
		{"unknown flag", parseErr(ParseSlotCreate), create(SlotCreate{Flags: 2, Banks: DefaultBanks, Name: "x"})},
		{"unknown key", parseErr(ParseSlotCreate), create(SlotCreate{Keys: 16, Banks: DefaultBanks, Name: "x"})},
		{"unknown bank", parseErr(ParseSlotCreate), create(SlotCreate{Banks: 16, Name: "x"})},
		{"no bank", parseErr(ParseSlotCreate), create(SlotCreate{Name: "x"})},
		{"no name", parseErr(ParseSlotCreate), create(SlotCreate{Banks: DefaultBanks})},
		{"bad name", parseErr(ParseSlotCreate), create(SlotCreate{Banks: DefaultBanks, Name: "../x"})},
		{"unknown life", parseErr(ParseSlotInfo), info(SlotInfo{Life: 5, Banks: DefaultBanks, Name: "x"})},
		{"info without a name", parseErr(ParseSlotInfo), info(SlotInfo{Banks: DefaultBanks})},
	} {
		if err := tc.parse(tc.msg); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", tc.name, err)
		}
	}
}

// TestSlotList: a card that lists in circles is refused.
func TestSlotList(t *testing.T) {
	list := func(numbers ...uint32) (b []byte) {
		for _, n := range numbers {
			b = AppendSlotInfo(b, &SlotInfo{Number: n, Banks: DefaultBanks, Name: "x"})
		}
		return b
	}
	if got, err := ParseSlotList(list(3, 4, 9), 3); err != nil || len(got) != 3 || got[2].Number != 9 {
		t.Errorf("ParseSlotList = %+v, %v, want three slots", got, err)
	}
	if got, err := ParseSlotList(nil, 3); err != nil || len(got) != 0 {
		t.Errorf("ParseSlotList of nothing = %+v, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"below from":    list(2, 3),
		"twice":         list(3, 3),
		"descending":    list(4, 3),
		"a part":        list(3)[:SlotInfoSize-1],
		"too many":      list(3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19),
		"malformed one": make([]byte, SlotInfoSize),
	} {
		if _, err := ParseSlotList(b, 3); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

func TestChoices(t *testing.T) {
	for s, want := range map[string]Keys{"none": 0, "rsa": KeyRSAEK, "rsa,p256,p384,srk": DefaultKeys, "srk,p384": KeyP384EK | KeySRK} {
		if got, err := ParseKeys(s); err != nil || got != want {
			t.Errorf("ParseKeys(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for s, want := range map[string]Banks{"sha256": BankSHA256, "sha512,sha1": BankSHA1 | BankSHA512} {
		if got, err := ParseBanks(s); err != nil || got != want {
			t.Errorf("ParseBanks(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "rsa,", "RSA", "none,rsa", "p521"} {
		if got, err := ParseKeys(s); err == nil {
			t.Errorf("ParseKeys(%q) = %v, want an error", s, got)
		}
	}
	if got, err := ParseBanks("none"); err == nil {
		t.Errorf("ParseBanks(none) = %v, want an error", got)
	}
	if got := DefaultKeys.String(); got != "rsa,p256,p384,srk" {
		t.Errorf("DefaultKeys = %q", got)
	}
	if got := Keys(0).String(); got != "none" {
		t.Errorf("no keys = %q", got)
	}
	if got := DefaultBanks.String(); got != "sha256,sha384" {
		t.Errorf("DefaultBanks = %q", got)
	}
}

// TestText: what a card says cannot move a terminal's cursor or fill a log.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"slot is locked":               "slot is locked",
		"a\x1b[2Jb\nc\x00":             "a [2Jb c ",
		"caf\xc3\xa9\xff":              "café",
		strings.Repeat("a", 2*MaxText): strings.Repeat("a", MaxText),
	} {
		if got := Text([]byte(in)); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestOpenMessage holds the bytes that are signed.
func TestOpenMessage(t *testing.T) {
	want := "hwvtpm open slot 1\x00" + string(serial[:]) + string(id16[:]) + string(nonce32[:])
	if got := OpenMessage(serial, id16, nonce32); string(got) != want {
		t.Errorf("OpenMessage = %x, want %x", got, want)
	}
}

func TestLifeNames(t *testing.T) {
	for l := LifeClosed; l <= LifeFaulted; l++ {
		if l.String() == "unknown" {
			t.Errorf("life %d has no name", l)
		}
	}
	if got := (LifeFaulted + 1).String(); got != "unknown" {
		t.Errorf("life 5 is %q", got)
	}
}
