// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
)

// onEach runs a benchmark with libtpms in a simulated card, and with swtpm where
// there is one.
func onEach(b *testing.B, bench func(b *testing.B, h *Host)) {
	b.Helper()
	for name, alg := range bothTypes {
		b.Run("libtpms/"+name, func(b *testing.B) { bench(b, newRig(b).open(Options{Key: alg})) })
		b.Run("swtpm/"+name, func(b *testing.B) { bench(b, openSwtpm(b, controltest.StartSwtpm(b), Options{Key: alg})) })
	}
}

func BenchmarkQuote(b *testing.B) {
	onEach(b, func(b *testing.B, h *Host) {
		sel := Selection([]uint{0, 1, 2, 3, 4, 5, 6, 7}, hashAlg)
		for b.Loop() {
			if _, err := h.Quote(b.Context(), make([]byte, 32), sel); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkIssue is a card's certificate: hash, ticket, signature.
func BenchmarkIssue(b *testing.B) {
	onEach(b, func(b *testing.B, h *Host) {
		_, host := hostAIK(b, h)
		issuer := &ca.Issuer{Certificate: host, Signer: h.Signer()}
		card := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(b)
		for b.Loop() {
			template := must(ca.CoprocessorAIK("0011223344556677", ca.Validity{Now: time.Now(), Life: time.Minute}))(b)
			if _, err := issuer.Issue(template, card.Public()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
