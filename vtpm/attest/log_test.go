// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"maps"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-eventlog/testdata"
)

// FuzzLog: who has a machine has a log of any content lead to its PCRs. Neither the log
// nor what is read of it afterwards may end the verifier.
func FuzzLog(f *testing.F) {
	variable, unknown := []byte{7, 0, 0, 0, 1, 0, 0, 0x80}, []byte{7, 0, 0, 0, 0xff, 0xff, 0, 0x80} // PCR and type of an event
	for _, seed := range [][]byte{
		bootLogBytes, testdata.Ubuntu2104NoDbxEventLog,
		bytes.Replace(bootLogBytes, variable, unknown, 1),
	} {
		if !leads(seed) {
			f.Fatal("a log of the test leads nowhere")
		}
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, raw []byte) { leads(raw) })
}

// extended are the values of PCR 0-7 that a log leads to in a bank.
func extended(el *tcg.EventLog, bank string, alg register.HashAlg) PCRs {
	values, hash := PCRs{}, alg.CryptoHash()
	for n := range firmwarePCRs {
		values.Set(bank, n, make([]byte, hash.Size()))
	}
	for _, e := range el.Events(alg) {
		if e.Type == tcg.NoAction || e.Index < 0 || e.Index >= firmwarePCRs || len(e.Digest) != hash.Size() {
			continue
		}
		h := hash.New()
		h.Write(values.Get(bank, e.Index))
		h.Write(e.Digest)
		values.Set(bank, e.Index, h.Sum(nil))
	}
	return values
}

// leads has a log lead to PCRs, if it is one, and be judged.
func leads(raw []byte) bool {
	parsed, err := tcg.ParseEventLog(raw, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		return false
	}
	values := extended(parsed, "sha256", register.HashSHA256)
	l, err := replay(raw, values)
	if err != nil {
		return false
	}
	_ = (&LayerPolicy{SecureBoot: true}).judge(values, l)
	return true
}

// A bank that firmware does not measure into is whoever's who boots from it: the events
// are to be true in each strong bank that is quoted.
func TestSecureBootInEachBank(t *testing.T) {
	parse := func(raw []byte) *tcg.EventLog {
		return ok[*tcg.EventLog](t)(tcg.ParseEventLog(raw, tcg.ParseOpts{AllowPadding: true}))
	}
	judge := func(raw []byte, values PCRs) error {
		return (&LayerPolicy{SecureBoot: true}).judge(values, ok[*bootLog](t)(replay(raw, values)))
	}
	quoted := func(raw []byte) PCRs {
		values := extended(parse(raw), "sha256", register.HashSHA256)
		maps.Copy(values, extended(parse(raw), "sha384", register.HashSHA384))
		return values
	}
	if err := judge(bootLogBytes, quoted(bootLogBytes)); err != nil {
		t.Fatalf("a log that shows Secure Boot on in both banks: %v", err)
	}
	forged := bytes.Clone(bootLogBytes)
	ends := logEnds(t, forged)
	for i, start := range ends[:len(ends)-1] {
		if bytes.Contains(forged[start:ends[i+1]], []byte("S\x00e\x00c\x00u\x00r\x00e\x00B\x00o\x00o\x00t\x00")) {
			forged[start+12+22+2] ^= 1 // its SHA-256: what was measured was something else
			break
		}
	}
	if err := judge(forged, quoted(forged)); err == nil {
		t.Error("an event whose data only fit its digest in one bank shows Secure Boot on")
	}
	part := quoted(bootLogBytes)
	delete(part["sha384"], "7")
	if err := judge(bootLogBytes, part); err == nil {
		t.Error("a bank that is quoted without PCR 7 shows Secure Boot on")
	}
}

// Events of a PCR that is not quoted are not judged, so that must not do.
func TestEventsOfPartOfABank(t *testing.T) {
	el := ok[*tcg.EventLog](t)(tcg.ParseEventLog(bootLogBytes, tcg.ParseOpts{AllowPadding: true}))
	values := extended(el, "sha256", register.HashSHA256)
	values.Set("sha384", 0, extended(el, "sha384", register.HashSHA384).Get("sha384", 0))
	l := ok[*bootLog](t)(replay(bootLogBytes, values))
	p := LayerPolicy{Events: allow("sha384", "4", make(Hex, 48))}
	if err := p.judge(values, l); err == nil {
		t.Error("events of PCR 4 of sha384 are as allowed, and it is not quoted")
	}
}

// A PCR whose events are judged had some: firmware ends each with a separator.
func TestNoEventIsAllowed(t *testing.T) {
	el := ok[*tcg.EventLog](t)(tcg.ParseEventLog(bootLogBytes, tcg.ParseOpts{AllowPadding: true}))
	values := extended(el, "sha256", register.HashSHA256)
	values.Set("sha256", 3, make([]byte, 32))
	l := ok[*bootLog](t)(replay(without(t, bootLogBytes, 3), values))
	for _, tc := range []struct {
		allowed []Hex
		good    bool
	}{{[]Hex{make(Hex, 32)}, false}, {nil, true}} {
		p := LayerPolicy{Events: map[string]map[string][]Hex{"sha256": {"3": tc.allowed}}}
		if err := p.judge(values, l); (err == nil) != tc.good {
			t.Errorf("no event, of %d that are allowed: %v", len(tc.allowed), err)
		}
	}
}
