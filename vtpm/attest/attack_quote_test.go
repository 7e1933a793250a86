// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"strconv"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// selectionOnly is a selection of PCR 0-7 in one bank.
func selectionOnly(bank string) map[string][]uint {
	return map[string][]uint{bank: {0, 1, 2, 3, 4, 5, 6, 7}}
}

// forge has a key outside of a TPM, certified as the victim's AIK, sign a quote of
// the attacker's making, and makes the host's layer fit it.
func (a *attempt) forge(values PCRs, edit func(attest []byte) []byte) {
	soft := softKey(a.t)
	a.ev.VM.Chain = a.chainOf(a.victim.certifyAIK(a.one.authority.Attestation, soft.Public(), a.victim.ekCert))
	a.ev.VM.PCRs = values
	what := map[string][]uint{}
	h := sha256.New()
	for _, b := range values.banks() {
		for _, n := range values.numbers(b.name) {
			what[b.name] = append(what[b.name], uint(n))
			h.Write(values.Get(b.name, n))
		}
	}
	raw := tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, ExtraData: tpm2.TPM2BData{Buffer: a.nonce},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: selectionList(what), PCRDigest: tpm2.TPM2BDigest{Buffer: h.Sum(nil)},
		}),
	})
	if edit != nil {
		raw = edit(raw)
	}
	a.ev.VM.Quote = Quote{Attest: raw, Signature: softSign(a.t, soft, raw)}
	a.hostFor(a.one)
}

func softSign(t testing.TB, k *ecdsa.PrivateKey, raw []byte) []byte {
	digest := sha256.Sum256(raw)
	r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash: tpm2.TPMAlgSHA256, SignatureR: ecParameter(r), SignatureS: ecParameter(s),
		}),
	})
}

func ecParameter(n *big.Int) tpm2.TPM2BECCParameter {
	return tpm2.TPM2BECCParameter{Buffer: n.FillBytes(make([]byte, 32))}
}

// sha1Values are PCRs of a bank that a collision makes worthless.
func sha1Values() PCRs {
	values := PCRs{}
	for n := range firmwarePCRs {
		v := sha1.Sum([]byte{byte(n)})
		values.Set("sha1", n, v[:])
	}
	return values
}

var quoteAttacks = []attack{
	{"evidence for an older nonce", func(a *attempt) {
		a.nonce = []byte("another nonce, not an older one.")
	}, []Name{ClaimVMFresh, ClaimHostFresh, ClaimHealth}},
	{"machine's quote for an older nonce", func(a *attempt) {
		a.ev.VM.Layer = a.victim.aik.layer([]byte("an older nonce of the verifier.."), firmware)
		a.hostFor(a.one)
	}, []Name{ClaimVMFresh}},
	{"machine's quote by another machine", func(a *attempt) {
		a.ev.VM.Layer = a.beside.aik.layer(a.nonce, firmware)
		a.hostFor(a.one)
	}, []Name{ClaimVMQuote}},
	{"machine's quote by a key of its TPM that is not certified", func(a *attempt) {
		other := a.victim.tpm.primary(rsaAIKTemplate(tpm2.TPMAlgRSASSA))
		a.ev.VM.Layer = other.layer(a.nonce, firmware)
		a.hostFor(a.one)
		if _, err := (tpm2.FlushContext{FlushHandle: other.handle.Handle}).Execute(a.victim.tpm); err != nil {
			a.t.Fatal(err)
		}
	}, []Name{ClaimVMQuote}},
	{"attestation of another type", func(a *attempt) {
		k := a.victim.aik
		r, err := tpm2.Certify{
			ObjectHandle: k.auth(), SignHandle: k.auth(), QualifyingData: tpm2.TPM2BData{Buffer: a.nonce},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(k.tpm)
		if err != nil {
			a.t.Fatal(err)
		}
		a.ev.VM.Quote = Quote{Attest: r.CertifyInfo.Bytes(), Signature: tpm2.Marshal(r.Signature)}
		a.hostFor(a.one)
	}, []Name{ClaimVMQuote}},
	{"quote that no TPM generated", func(a *attempt) {
		a.forge(a.ev.VM.PCRs, func(raw []byte) []byte {
			binary.BigEndian.PutUint32(raw, 0xff544348)
			return raw
		})
	}, []Name{ClaimVMQuote}},
	{"something behind the quote", func(a *attempt) {
		a.forge(a.ev.VM.PCRs, func(raw []byte) []byte { return append(raw, 0) })
	}, []Name{ClaimVMQuote}},
	{"bit turned in the quote", func(a *attempt) {
		a.ev.VM.Quote.Attest[len(a.ev.VM.Quote.Attest)-1] ^= 1
		a.hostFor(a.one)
	}, []Name{ClaimVMQuote}},
	{"something behind the signature", func(a *attempt) {
		a.ev.VM.Quote.Signature = append(a.ev.VM.Quote.Signature, 0)
	}, []Name{ClaimVMQuote}},
	{"layers swapped", func(a *attempt) {
		host := *a.ev.Host
		*a.ev.Host = a.ev.VM.Layer
		a.ev.VM.Layer = host
		a.ev.Binding.Health = nil
	}, []Name{ClaimVMQuote, ClaimHostQuote}},
	{"host's quote by another host", func(a *attempt) { a.hostFor(a.two) }, []Name{ClaimHostQuote}},
	{"host's quote for another machine", func(a *attempt) {
		other := a.beside.answer(a.nonce)
		a.ev.Host = other.Host
	}, []Name{ClaimHostFresh}},
	{"host's quote for the verifier's nonce", func(a *attempt) {
		layer := a.one.hostAIK.layer(a.nonce, firmware)
		layer.Log = a.ev.Host.Log
		a.ev.Host = &layer
	}, []Name{ClaimHostFresh}},
	{"machine's PCR value changed", func(a *attempt) {
		a.ev.VM.PCRs.Get("sha256", 4)[0] ^= 1
	}, []Name{ClaimVMPCRs}},
	{"host's PCR value changed", func(a *attempt) {
		a.ev.Host.PCRs.Get("sha384", 0)[0] ^= 1
	}, []Name{ClaimHostPCRs}},
	{"value of a PCR that is not quoted", func(a *attempt) {
		a.ev.VM.PCRs.Set("sha256", 14, make([]byte, 32))
	}, []Name{ClaimVMPCRs}},
	{"value of a quoted PCR left out", func(a *attempt) {
		delete(a.ev.VM.PCRs["sha256"], "3")
	}, []Name{ClaimVMPCRs}},
	{"PCR 7 is not quoted", func(a *attempt) {
		less := map[string][]uint{"sha256": {0, 1, 2, 3, 4, 5, 6}}
		a.ev.VM.Layer = a.victim.aik.layer(a.nonce, less)
		a.hostFor(a.one)
	}, []Name{ClaimVMPCRs}},
	{"SHA-1 alone", func(a *attempt) { a.forge(sha1Values(), nil) }, []Name{ClaimVMPCRs}},
	{"PCRs beyond the last", func(a *attempt) {
		a.forge(a.ev.VM.PCRs, func(raw []byte) []byte {
			// The selection of each bank: algorithm, size, three octets of bits.
			raw[len(raw)-34-3] |= 0x80 // PCR 7 of the last bank, that is quoted, to PCR 15
			raw[len(raw)-34-2] |= 0x80
			return raw
		})
	}, []Name{ClaimVMPCRs}},
	{"bank of the host that the machine does not quote", func(a *attempt) {
		a.ev.VM.Layer = a.victim.aik.layer(a.nonce, selectionOnly("sha256"))
		a.hostFor(a.one)
	}, []Name{ClaimEqual}},
	{"bank of the machine that the host does not quote", func(a *attempt) {
		fresh := HostNonce(a.nonce, a.ev.VM.Quote.Attest)
		layer := a.one.hostAIK.layer(fresh[:], selectionOnly("sha256"))
		a.ev.Host = &layer
	}, []Name{ClaimEqual}},
	{"machine whose PCRs are its own", func(a *attempt) {
		own := newTPM(a.t, nil)
		aik := own.aik()
		a.ev.VM.Chain = a.chainOf(a.victim.certifyAIK(a.one.authority.Attestation, aik.pub, a.victim.ekCert))
		a.ev.VM.Layer = aik.layer(a.nonce, firmware)
		a.hostFor(a.one)
	}, []Name{ClaimEqual}},
	{"mode evidence where map is asked for", func(a *attempt) {
		a.ev.PCRMap = ModeEvidence
	}, []Name{ClaimMode}},
	{"mode off where map is asked for", func(a *attempt) {
		a.ev.PCRMap, a.ev.Host = ModeOff, nil
	}, []Name{ClaimMode}},
	{"host left out", func(a *attempt) { a.ev.Host = nil }, nil},
}

// Several keys and schemes sign quotes that hold.
func TestQuoteSchemes(t *testing.T) {
	p := newTPM(t, nil)
	for _, scheme := range []tpm2.TPMAlgID{tpm2.TPMAlgECDSA, tpm2.TPMAlgRSASSA, tpm2.TPMAlgRSAPSS} {
		t.Run(strconv.Itoa(int(scheme)), func(t *testing.T) {
			template := aikTemplate(true)
			if scheme != tpm2.TPMAlgECDSA {
				template = rsaAIKTemplate(scheme)
			}
			k := p.primary(template)
			l := k.layer(nonce, firmware)
			q, err := openQuote(k.pub, &l.Quote)
			if err != nil {
				t.Fatal(err)
			}
			if err := q.checkPCRs(l.PCRs, []int{0, 7}); err != nil {
				t.Error(err)
			}
			l.Quote.Signature[len(l.Quote.Signature)-1] ^= 1
			if _, err := openQuote(k.pub, &l.Quote); err == nil {
				t.Error("a quote with a wrong signature holds")
			}
			if _, err := (tpm2.FlushContext{FlushHandle: k.handle.Handle}).Execute(p); err != nil {
				t.Fatal(err)
			}
		})
	}
}
