// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"fmt"
	"strings"
)

// Keys is the set of keys that manufacture makes and persists in a slot (TCG EK
// Credential Profile 2.5, B.3 and B.4; TCG Provisioning Guidance 1.0, 7.8).
type Keys uint32

// Keys of a slot.
const (
	KeyRSAEK  Keys = 1 << 0 // endorsement key, RSA-2048, template L-1, at 0x81010001
	KeyP256EK Keys = 1 << 1 // endorsement key, ECC P-256, template L-2, at 0x8101000a
	KeyP384EK Keys = 1 << 2 // endorsement key, ECC P-384, template H-3, at 0x81010016
	KeySRK    Keys = 1 << 3 // storage root key, RSA-2048, at 0x81000001

	DefaultKeys = KeyRSAEK | KeyP256EK | KeyP384EK | KeySRK
)

// Banks is the set of PCR banks that are allocated in a slot. There is at
// least one.
type Banks uint32

// Banks of a slot.
const (
	BankSHA1   Banks = 1 << 0
	BankSHA256 Banks = 1 << 1
	BankSHA384 Banks = 1 << 2
	BankSHA512 Banks = 1 << 3

	DefaultBanks = BankSHA256 | BankSHA384
)

const knownBanks = BankSHA1 | BankSHA256 | BankSHA384 | BankSHA512

// names of the bits of both sets, the lowest first.
var (
	keyNames  = []string{"rsa", "p256", "p384", "srk"}
	bankNames = []string{"sha1", "sha256", "sha384", "sha512"}
)

// Valid tells whether all keys of the set are known.
func (k Keys) Valid() bool { return k&^DefaultKeys == 0 }

// Valid tells whether all banks of the set are known, and there is one.
func (b Banks) Valid() bool { return b != 0 && b&^knownBanks == 0 }

// String lists the set as [ParseKeys] reads it.
func (k Keys) String() string { return setString(uint32(k), keyNames) }

// String lists the set as [ParseBanks] reads it.
func (b Banks) String() string { return setString(uint32(b), bankNames) }

// ParseKeys reads a list such as "rsa,p256,p384,srk", or "none".
func ParseKeys(s string) (Keys, error) {
	if s == "none" {
		return 0, nil
	}
	set, err := parseSet(s, keyNames)
	return Keys(set), err
}

// ParseBanks reads a list such as "sha256,sha384".
func ParseBanks(s string) (Banks, error) {
	set, err := parseSet(s, bankNames)
	return Banks(set), err
}

func setString(set uint32, names []string) string {
	var has []string
	for i, name := range names {
		if set&(1<<i) != 0 {
			has = append(has, name)
		}
	}
	if len(has) == 0 {
		return "none"
	}
	return strings.Join(has, ",")
}

func parseSet(s string, names []string) (uint32, error) {
	var set uint32
	for word := range strings.SplitSeq(s, ",") {
		bit, ok := bitOf(word, names)
		if !ok {
			return 0, fmt.Errorf("%q is not one of %s", word, strings.Join(names, ", "))
		}
		set |= bit
	}
	return set, nil
}

func bitOf(word string, names []string) (uint32, bool) {
	for i, name := range names {
		if word == name {
			return 1 << i, true
		}
	}
	return 0, false
}
