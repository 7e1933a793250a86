// SPDX-License-Identifier: Apache-2.0

package bootevidencetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/hostpcr"
)

// banks are those of the host's TPM.
var banks = []struct {
	bank abi.Banks
	alg  tpm2.TPMIAlgHash
	size int
}{{abi.BankSHA1, tpm2.TPMAlgSHA1, 20}, {abi.BankSHA256, tpm2.TPMAlgSHA256, 32}, {abi.BankSHA384, tpm2.TPMAlgSHA384, 48}}

// Host is a host.
type Host struct {
	Key  *ecdsa.PrivateKey
	PCRs coproc.PCRMap
}

// New makes a host. Hosts with another first byte have other PCRs.
func New(t testing.TB, first byte) *Host {
	t.Helper()
	h := &Host{}
	var err error
	if h.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	for _, b := range banks {
		var values [][]byte
		for pcr := range abi.HostPCRs {
			values = append(values, bytes.Repeat([]byte{first + byte(pcr)}, b.size))
		}
		if err := h.PCRs.SetBank(b.bank, values); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// Evidence makes evidence for a run.
func (h *Host) Evidence(run coproc.RunID, slot string) (*bootevidence.Evidence, error) {
	nonce := bootevidence.Qualifying(run, slot)
	q, err := h.Quote(nonce[:])
	if err != nil {
		return nil, err
	}
	return bootevidence.New(run, slot, []byte("certificate"), q, &h.PCRs)
}

// Quote quotes PCR 0-7 as a TPM does (TPM2_Quote, Part 3, 18.4).
func (h *Host) Quote(nonce []byte) (*hostpcr.Quote, error) {
	info := tpm2.TPMSQuoteInfo{}
	values := sha256.New()
	for _, b := range banks {
		info.PCRSelect.PCRSelections = append(info.PCRSelect.PCRSelections,
			tpm2.TPMSPCRSelection{Hash: b.alg, PCRSelect: []byte{0xff, 0, 0}})
		for pcr := range abi.HostPCRs {
			values.Write(h.PCRs.Value(b.bank, pcr))
		}
	}
	info.PCRDigest = tpm2.TPM2BDigest{Buffer: values.Sum(nil)}
	attest := tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, ExtraData: tpm2.TPM2BData{Buffer: nonce},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &info),
	})
	digest := sha256.Sum256(attest)
	r, s, err := ecdsa.Sign(rand.Reader, h.Key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
		}),
	})
	return &hostpcr.Quote{Attest: attest, Signature: signature, Nonce: nonce}, nil
}
