// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-eventlog/testdata"
)

// logEnds are the ends of the events of a crypto agile log (TCG PC Client Platform
// Firmware Profile, "Crypto Agile Log Entry Format"), the first being the header's.
func logEnds(t testing.TB, log []byte) []int {
	t.Helper()
	le := binary.LittleEndian
	ends := []int{32 + int(le.Uint32(log[28:]))}
	sizes := map[uint16]int{4: 20, 0xb: 32, 0xc: 48, 0xd: 64}
	for at := ends[0]; at+12 <= len(log); ends = append(ends, at) {
		digests := int(le.Uint32(log[at+8:]))
		at += 12
		for range digests {
			size, known := sizes[le.Uint16(log[at:])]
			if !known {
				t.Fatalf("digest of algorithm %#x", log[at:at+2])
			}
			at += 2 + size
		}
		at += 4 + int(le.Uint32(log[at:]))
	}
	return ends
}

// without drops the events of one PCR.
func without(t testing.TB, log []byte, pcr uint32) []byte {
	ends := logEnds(t, log)
	out := slices.Clone(log[:ends[0]])
	for i, start := range ends[:len(ends)-1] {
		if binary.LittleEndian.Uint32(log[start:]) != pcr {
			out = append(out, log[start:ends[i+1]]...)
		}
	}
	return out
}

var logAttacks = []attack{
	{"log ends after an event", func(a *attempt) {
		ends := logEnds(a.t, a.ev.Host.Log)
		a.ev.Host.Log = a.ev.Host.Log[:ends[len(ends)/2]]
	}, []Name{ClaimHostLog}},
	{"log ends in an event", func(a *attempt) {
		ends := logEnds(a.t, a.ev.Host.Log)
		a.ev.Host.Log = a.ev.Host.Log[:ends[3]+20]
	}, []Name{ClaimHostLog}},
	{"log without the events of a PCR", func(a *attempt) {
		a.ev.Host.Log = without(a.t, a.ev.Host.Log, 7)
	}, []Name{ClaimHostLog}},
	{"log with its header only", func(a *attempt) {
		a.ev.Host.Log = a.ev.Host.Log[:logEnds(a.t, a.ev.Host.Log)[0]]
	}, []Name{ClaimHostLog}},
	{"log with a digest changed", func(a *attempt) {
		log := slices.Clone(a.ev.Host.Log)
		log[logEnds(a.t, log)[2]+12+22+2] ^= 1 // the second digest, SHA-256
		a.ev.Host.Log = log
	}, []Name{ClaimHostLog}},
	{"log of another machine", func(a *attempt) { a.ev.Host.Log = testdata.Cos101AmdSevEventLog }, []Name{ClaimHostLog}},
	{"log with SHA-1 alone", func(a *attempt) { a.ev.Host.Log = testdata.Debian10EventLog }, []Name{ClaimHostLog}},
	{"log that is none", func(a *attempt) { a.ev.Host.Log = bytes.Repeat([]byte{0xff}, 4096) }, []Name{ClaimHostLog}},
	{"log of the machine that does not fit", func(a *attempt) { a.ev.VM.Log = testdata.Cos101AmdSevEventLog }, []Name{ClaimVMLog}},
}

// allow is a table that allows one value.
func allow(bank, pcr string, v Hex) map[string]map[string][]Hex {
	return map[string]map[string][]Hex{bank: {pcr: {v}}}
}

var policyAttacks = []attack{
	{"machine that is not known", func(a *attempt) { a.v.Policy.Machines = []string{"vm-9"} }, []Name{ClaimPolicyNames}},
	{"host that is not known", func(a *attempt) { a.v.Policy.Hosts = []string{"host-2"} }, []Name{ClaimPolicyNames}},
	{"card that is not known", func(a *attempt) { a.v.Policy.Cards = []string{"00"} }, []Name{ClaimPolicyNames}},
	{"firmware of the host is not allowed", func(a *attempt) {
		a.v.Policy.Host.PCRs = allow("sha256", "0", make(Hex, 32))
	}, []Name{ClaimPolicyHost}},
	{"PCR of the machine is not quoted", func(a *attempt) {
		a.v.Policy.VM.PCRs = allow("sha256", "14", make(Hex, 32))
	}, []Name{ClaimPolicyVM}},
	{"bank of the policy is not quoted", func(a *attempt) {
		a.v.Policy.VM.PCRs = allow("sha512", "0", make(Hex, 64))
	}, []Name{ClaimPolicyVM}},
	{"PCR that must be quoted is not", func(a *attempt) { a.v.Policy.VM.Quoted = []int{11} }, []Name{ClaimVMPCRs}},
	{"boot aggregate is not quoted", func(a *attempt) {
		a.v.Policy.VM.BootAggregates = []Hex{make(Hex, 32)}
	}, []Name{ClaimPolicyVM}},
	{"event that is not allowed", func(a *attempt) {
		a.v.Policy.Host.Events = allow("sha256", "4", make(Hex, 32))
	}, []Name{ClaimPolicyHost}},
	{"events are judged and there is no log", func(a *attempt) {
		a.v.Policy.VM.Events = allow("sha256", "4", make(Hex, 32))
	}, []Name{ClaimPolicyVM}},
	{"Secure Boot is asked of a machine without log", func(a *attempt) {
		a.v.Policy.VM.SecureBoot = true
	}, []Name{ClaimPolicyVM}},
	{"log is asked for and not there", func(a *attempt) { a.v.Policy.VM.Log = true }, nil},
	{"host must quote more, and is left out", func(a *attempt) {
		a.v.Policy.Modes, a.v.Policy.Host.Quoted = []Mode{ModeOff}, []int{14}
		a.ev.PCRMap, a.ev.Host, a.ev.Binding.Health = ModeOff, nil, nil
	}, nil},
	{"firmware of the card is not allowed", func(a *attempt) {
		a.v.Policy.Card.Firmware = []Hex{make(Hex, 32)}
	}, []Name{ClaimPolicyCard}},
	{"card's key is not with the host's TPM", func(a *attempt) { a.v.Policy.Card.HardwareKey = true }, []Name{ClaimPolicyCard}},
	{"card's counter is not in the host's TPM", func(a *attempt) { a.v.Policy.Card.HardwareCounter = true }, []Name{ClaimPolicyCard}},
	{"card is judged and says nothing", func(a *attempt) {
		a.v.Policy.Card.HardwareKey, a.ev.Binding.Health = true, nil
	}, nil},
}
