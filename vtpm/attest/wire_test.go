// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// byGoTPM reads a quote as go-tpm does, which reads all attestations there are, and
// lets pass what stands behind the end.
func byGoTPM(b []byte) (*quote, bool) {
	att, err := tpm2.Unmarshal[tpm2.TPMSAttest](b)
	if err != nil || att.Magic != tpm2.TPMGeneratedValue || !bytes.Equal(tpm2.Marshal(att), b) {
		return nil, false
	}
	info, err := att.Attested.Quote()
	if err != nil || len(att.QualifiedSigner.Buffer) > maxName || len(att.ExtraData.Buffer) > maxData || len(info.PCRDigest.Buffer) > maxDigest {
		return nil, false
	}
	q := &quote{
		extra: att.ExtraData.Buffer, digest: info.PCRDigest.Buffer,
		clock: Clock{att.ClockInfo.Clock, att.ClockInfo.ResetCount, att.ClockInfo.RestartCount, bool(att.ClockInfo.Safe)},
	}
	for _, s := range info.PCRSelect.PCRSelections {
		b := bankOf(s.Hash)
		if b == nil || slices.ContainsFunc(q.selection, func(o selected) bool { return o.bank == b }) {
			return nil, false
		}
		one := selected{bank: b}
		for n := range 8 * len(s.PCRSelect) {
			if s.PCRSelect[n/8]>>(n%8)&1 != 0 {
				one.pcrs = append(one.pcrs, n)
			}
		}
		q.selection = append(q.selection, one)
	}
	return q, true
}

func sameQuote(a, b *quote) bool {
	return bytes.Equal(a.extra, b.extra) && bytes.Equal(a.digest, b.digest) && a.clock == b.clock && reflect.DeepEqual(a.selection, b.selection)
}

// FuzzQuote holds the parser against go-tpm's.
func FuzzQuote(f *testing.F) {
	ev := ok[*Evidence](f)(Parse(golden(f, "evidence.json")))
	for _, q := range []Quote{ev.VM.Quote, ev.Host.Quote, ev.Binding.CardQuote} {
		f.Add([]byte(q.Attest))
		f.Add([]byte(q.Attest[:len(q.Attest)-1]))
		f.Add(append(slices.Clone([]byte(q.Attest)), 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseQuote(b)
		want, good := byGoTPM(b)
		if (err == nil) != good {
			t.Fatalf("parseQuote: %v; go-tpm reads it: %v", err, good)
		}
		if good && !sameQuote(got, want) {
			t.Errorf("parseQuote = %+v, go-tpm has %+v", got, want)
		}
	})
}

// Each cut, each longer one, and each byte changed of a quote and of its signature is
// refused.
func TestQuoteIsRead(t *testing.T) {
	v, ev := goldenVerifier(t), ok[*Evidence](t)(Parse(golden(t, "evidence.json")))
	certs, _, err := v.vmChain(ev.VM.Chain)
	if err != nil {
		t.Fatal(err)
	}
	key, q := certs[0].PublicKey, ev.VM.Quote
	opened, err := openQuote(key, &q)
	if want, good := byGoTPM(q.Attest); err != nil || !good || !sameQuote(opened, want) {
		t.Fatalf("openQuote = %+v, %v; go-tpm has %+v", opened, err, want)
	}
	for n := range q.Attest {
		if _, err := parseQuote(q.Attest[:n]); err == nil {
			t.Errorf("%d bytes of a quote are read", n)
		}
	}
	for n := range q.Signature {
		if _, err := openQuote(key, &Quote{q.Attest, q.Signature[:n]}); err == nil {
			t.Errorf("%d bytes of a signature are taken", n)
		}
		bad := slices.Clone(q.Signature)
		bad[n] ^= 1
		if _, err := openQuote(key, &Quote{q.Attest, bad}); err == nil {
			t.Errorf("a signature with byte %d changed is taken", n)
		}
	}
}
