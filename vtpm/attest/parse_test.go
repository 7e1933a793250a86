// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseIsStrict(t *testing.T) {
	good := string(golden(t, "evidence.json"))
	for name, edit := range map[string]func(string) string{
		"nothing":             func(string) string { return "" },
		"no object":           func(string) string { return "[]" },
		"null":                func(string) string { return "null" },
		"cut":                 func(s string) string { return s[:len(s)/2] },
		"something behind":    func(s string) string { return s + "{}" },
		"brace behind":        func(s string) string { return s + "}" },
		"other version":       func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 2`, 1) },
		"unknown member":      func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 1, "more": 1`, 1) },
		"member twice":        func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 1, "version": 1`, 1) },
		"member in capitals":  func(s string) string { return strings.Replace(s, `"version": 1`, `"Version": 1`, 1) },
		"capitals beside":     func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 1, "VM": {}`, 1) },
		"letter that folds":   func(s string) string { return strings.Replace(s, `"version"`, `"verſion"`, 1) },
		"unknown mode":        func(s string) string { return strings.Replace(s, `"map"`, `"none"`, 1) },
		"null member":         func(s string) string { return strings.Replace(s, `"version": 1`, `"host": null, "version": 1`, 1) },
		"string for object":   func(s string) string { return strings.Replace(s, `"quote": {`, `"quote": "", "x": {`, 1) },
		"unknown bank":        func(s string) string { return strings.Replace(s, `"sha384": {`, `"md5": {`, 1) },
		"PCR 24":              func(s string) string { return strings.Replace(s, `"7": `, `"24": `, 1) },
		"PCR 07":              func(s string) string { return strings.Replace(s, `"7": `, `"07": `, 1) },
		"PCR twice":           func(s string) string { return strings.Replace(s, `"7": `, `"6": `, 1) },
		"short digest":        func(s string) string { return strings.Replace(s, `"0": "24`, `"0": "`, 1) },
		"digest in capitals":  func(s string) string { return strings.Replace(s, `"0": "24af`, `"0": "24AF`, 1) },
		"line in base64":      func(s string) string { return strings.Replace(s, `"attest": "/1`, `"attest": "/1\n`, 1) },
		"bits behind base64":  func(s string) string { return strings.Replace(s, `"statement": "`, `"statement": "AB==`, 1) },
		"no attest":           func(s string) string { return strings.Replace(s, `"attest": "/1`, `"attest": "", "x": "`, 1) },
		"deep":                func(string) string { return strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40) },
		"deeper":              func(string) string { return strings.Repeat("[", 1<<20) },
		"more than the limit": func(s string) string { return s + strings.Repeat(" ", MaxEvidence) },
		"huge log": func(s string) string {
			return strings.Replace(s, `"log": "`, `"log": "`+strings.Repeat("AAAA", MaxLog/3), 1)
		},
		"huge chain": func(s string) string {
			return strings.Replace(s, `"chain": "`, `"chain": "`+strings.Repeat("A", MaxChain), 1)
		},
	} {
		text := edit(good)
		if text == good {
			t.Fatalf("%s: the edit did nothing", name)
		}
		if ev, err := Parse([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %v, want ErrFormat", name, ev != nil, err)
		}
	}
}

func TestParsePolicyIsStrict(t *testing.T) {
	for name, text := range map[string]string{
		"no version":         `{}`,
		"other version":      `{"version":2}`,
		"unknown member":     `{"version":1,"vm":{"pcr":{}}}`,
		"unknown mode":       `{"version":1,"modes":["any"]}`,
		"unknown bank":       `{"version":1,"vm":{"pcrs":{"sm3":{"0":[]}}}}`,
		"bank without PCRs":  `{"version":1,"vm":{"pcrs":{"sha256":{}}}}`,
		"PCR 24":             `{"version":1,"vm":{"quoted":[24]}}`,
		"short value":        `{"version":1,"vm":{"pcrs":{"sha256":{"0":["00"]}}}}`,
		"events of PCR 8":    `{"version":1,"host":{"events":{"sha256":{"8":[]}}}}`,
		"short aggregate":    `{"version":1,"host":{"boot-aggregates":["00"]}}`,
		"short measurement":  `{"version":1,"card":{"firmware":["00"]}}`,
		"string for boolean": `{"version":1,"revocation":"yes"}`,
		"no mode":            `{"version":1,"modes":[]}`,
		"no machine":         `{"version":1,"machines":[]}`,
		"no host":            `{"version":1,"hosts":[]}`,
		"no card":            `{"version":1,"cards":[]}`,
		"no bank":            `{"version":1,"vm":{"pcrs":{}}}`,
		"no bank's events":   `{"version":1,"host":{"events":{}}}`,
		"no aggregate":       `{"version":1,"vm":{"boot-aggregates":[]}}`,
		"no firmware":        `{"version":1,"card":{"firmware":[]}}`,
	} {
		if p, err := ParsePolicy([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v, want ErrFormat", name, p, err)
		}
	}
	if _, err := ParsePolicy([]byte(`{"version":1,"modes":["off"],"vm":{"pcrs":{"sha256":{"0":[]}}}}`)); err != nil {
		t.Errorf("a policy that allows no value: %v", err)
	}
}

func TestNonceSizes(t *testing.T) {
	ev, v := ok[*Evidence](t)(Parse(golden(t, "evidence.json"))), goldenVerifier(t)
	for _, n := range []int{0, 15, 65} {
		if _, err := v.Verify(ev, make([]byte, n)); !errors.Is(err, ErrNonce) {
			t.Errorf("Verify with %d bytes: %v, want ErrNonce", n, err)
		}
	}
}

// The values are those of another implementation of SHA-256.
func TestDerivedNoncesAreFixed(t *testing.T) {
	host, card := HostNonce([]byte("nonce"), []byte("attest")), CardData([]byte("spki"))
	const wantHost = "4612e094c76041374b0d8ff74787b7c919f1e8266090fb6c6c42a136023c8c19"
	const wantCard = "a09bc354eb74106d4654655572784138bea4ea8c420260e53ee4ee3a2c013e4a"
	if got := Hex(host[:]).String(); got != wantHost {
		t.Errorf("HostNonce = %s, want %s", got, wantHost)
	}
	if got := Hex(card[:]).String(); got != wantCard {
		t.Errorf("CardData = %s, want %s", got, wantCard)
	}
}

func TestSinceBinding(t *testing.T) {
	at := func(ms uint64, resets, restarts uint32) Clock { return Clock{ms, resets, restarts, true} }
	for _, tc := range []struct {
		name       string
		bound, now Clock
		same, bad  bool
	}{
		{"at once", at(5, 1, 1), at(5, 1, 1), true, false},
		{"later", at(5, 1, 1), at(6, 1, 1), true, false},
		{"bound afterwards", at(6, 1, 1), at(5, 1, 1), false, true},
		{"a boot later", at(6, 1, 1), at(5, 2, 0), false, false},
		{"after sleep", at(5, 1, 1), at(6, 1, 2), false, false},
		{"boots backwards", at(5, 2, 1), at(6, 1, 1), false, true},
		{"counts with an offset that wraps", at(5, 0xffffffff, 1), at(6, 0, 1), false, false},
	} {
		if text, same, err := sinceBinding(tc.bound, tc.now); same != tc.same || (err != nil) != tc.bad {
			t.Errorf("%s: %q, %v, %v", tc.name, text, same, err)
		}
	}
}

func TestRanges(t *testing.T) {
	for want, in := range map[string][]int{"": nil, "0": {0}, "0-7": {0, 1, 2, 3, 4, 5, 6, 7}, "0-1, 4, 7-8": {0, 1, 4, 7, 8}} {
		if got := ranges(in); got != want {
			t.Errorf("ranges(%v) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	good := golden(f, "evidence.json")
	f.Add(good)
	f.Add([]byte(`{"version":1,"pcr-map":"off"}`))
	v := goldenVerifier(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		sameLogs(t, text)
		ev, err := Parse(text)
		if err != nil {
			return
		}
		again := ok[*Evidence](t)(Parse(ok[[]byte](t)(ev.Marshal())))
		if r := ok[*Result](t)(v.Verify(again, nonce)); r.OK && r.Machine != "vm-1" {
			t.Errorf("evidence of %q holds", r.Machine)
		}
	})
}

// Bytes of the structures inside, which the fuzzer of JSON rarely gets to.
func FuzzStructures(f *testing.F) {
	ev := ok[*Evidence](f)(Parse(golden(f, "evidence.json")))
	f.Add([]byte(ev.VM.Quote.Attest), []byte(ev.VM.Quote.Signature), []byte(ev.Binding.EKPublic), []byte(ev.Host.Log[:2000]))
	v := goldenVerifier(f)
	chain, err := v.bindingChain(ev.Binding.Chain)
	if err != nil {
		f.Fatal(err)
	}
	aik, _, err := v.vmChain(ev.VM.Chain)
	if err != nil {
		f.Fatal(err)
	}
	good := slices.Clone(ev.VM.Quote.Attest)
	f.Fuzz(func(t *testing.T, attest, signature, public, log []byte) {
		if _, err := openQuote(aik[0].PublicKey, &Quote{attest, signature}); err == nil && !bytes.Equal(attest, good) {
			t.Error("a quote holds that nobody signed")
		}
		_ = checkEK(public, chain, nil)
		if l, err := replay(log, ev.Host.PCRs); err == nil {
			_, _ = l.secureBoot()
		}
	})
}
