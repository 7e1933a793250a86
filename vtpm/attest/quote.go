// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// Clock is what a TPM says of its time in each attestation: TPMS_CLOCK_INFO. The
// two counts of a key outside the endorsement hierarchy have an offset, which is
// the same for all that the key signs (TCG Part 1, "Attestation Data").
type Clock struct {
	Milliseconds uint64 `json:"milliseconds"`
	Resets       uint32 `json:"resets"`
	Restarts     uint32 `json:"restarts"`
	Safe         bool   `json:"safe"`
}

// quote is a TPMS_ATTEST of TPM2_Quote that a known key signed.
type quote struct {
	extra     []byte // qualifying data
	clock     Clock
	selection []selected
	digest    []byte
	hash      crypto.Hash // of the signature, and of digest
}

// selected is what a quote has of one bank.
type selected struct {
	bank *bank
	pcrs []int // ascending
}

// openQuote checks a quote's signature and form. A restricted key never signs data
// from outside that begins with the magic of a TPMS_ATTEST (TCG Part 1, "Restricted
// attribute"), so the magic, which go-tpm lets pass, counts as much as the signature.
func openQuote(key crypto.PublicKey, q *Quote) (*quote, error) {
	hash, err := checkSignature(key, q.Attest, q.Signature)
	if err != nil {
		return nil, err
	}
	att, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
	if err != nil {
		return nil, fmt.Errorf("what is signed is no attestation of a TPM: %w", err)
	}
	if att.Magic != tpm2.TPMGeneratedValue {
		return nil, fmt.Errorf("what is signed begins with %#x: no TPM made it", uint32(att.Magic))
	}
	info, err := att.Attested.Quote()
	if err != nil || att.Type != tpm2.TPMSTAttestQuote {
		return nil, fmt.Errorf("what is signed is an attestation of type %#x, not a quote", uint16(att.Type))
	}
	if !bytes.Equal(tpm2.Marshal(att), q.Attest) {
		return nil, errors.New("something stands behind the end of the quote")
	}
	out := &quote{
		extra: att.ExtraData.Buffer, digest: info.PCRDigest.Buffer, hash: hash,
		clock: Clock{att.ClockInfo.Clock, att.ClockInfo.ResetCount, att.ClockInfo.RestartCount, bool(att.ClockInfo.Safe)},
	}
	out.selection, err = selectionOf(info.PCRSelect.PCRSelections)
	return out, err
}

// selectionOf reads a TPML_PCR_SELECTION: each bank once.
func selectionOf(list []tpm2.TPMSPCRSelection) ([]selected, error) {
	var all []selected
	for _, s := range list {
		b := bankOf(s.Hash)
		if b == nil {
			return nil, fmt.Errorf("the quote has a PCR bank of algorithm %#x", uint16(s.Hash))
		}
		if slices.ContainsFunc(all, func(o selected) bool { return o.bank == b }) {
			return nil, fmt.Errorf("the quote has the bank %s twice", b.name)
		}
		one := selected{bank: b}
		for i, bits := range s.PCRSelect {
			for bit := range 8 {
				if bits&(1<<bit) != 0 {
					one.pcrs = append(one.pcrs, 8*i+bit)
				}
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// checkSignature checks a TPMT_SIGNATURE of an attestation key.
func checkSignature(key crypto.PublicKey, signed, signature []byte) (crypto.Hash, error) {
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return 0, fmt.Errorf("the signature can't be read: %w", err)
	}
	if !bytes.Equal(tpm2.Marshal(sig), signature) {
		return 0, errors.New("something stands behind the end of the signature")
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return checkECDSA(key, signed, sig)
	case *rsa.PublicKey:
		return checkRSA(key, signed, sig)
	}
	return 0, fmt.Errorf("a key of type %T signs no quotes", key)
}

func checkECDSA(key *ecdsa.PublicKey, signed []byte, sig *tpm2.TPMTSignature) (crypto.Hash, error) {
	s, err := sig.Signature.ECDSA()
	if err != nil {
		return 0, fmt.Errorf("a signature of scheme %#x by an ECDSA key", uint16(sig.SigAlg))
	}
	hash, digest, err := digestOf(s.Hash, signed)
	if err != nil {
		return 0, err
	}
	r, t := new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)
	if !ecdsa.Verify(key, digest, r, t) {
		return 0, errors.New("the signature is wrong")
	}
	return hash, nil
}

func checkRSA(key *rsa.PublicKey, signed []byte, sig *tpm2.TPMTSignature) (crypto.Hash, error) {
	s, err := sig.Signature.RSASSA()
	if sig.SigAlg == tpm2.TPMAlgRSAPSS {
		s, err = sig.Signature.RSAPSS()
	}
	if err != nil {
		return 0, fmt.Errorf("a signature of scheme %#x by an RSA key", uint16(sig.SigAlg))
	}
	hash, digest, err := digestOf(s.Hash, signed)
	if err != nil {
		return 0, err
	}
	if sig.SigAlg == tpm2.TPMAlgRSAPSS {
		err = rsa.VerifyPSS(key, hash, digest, s.Sig.Buffer, nil)
	} else {
		err = rsa.VerifyPKCS1v15(key, hash, digest, s.Sig.Buffer)
	}
	if err != nil {
		return 0, errors.New("the signature is wrong")
	}
	return hash, nil
}

func digestOf(alg tpm2.TPMAlgID, data []byte) (crypto.Hash, []byte, error) {
	b := bankOf(alg)
	if b == nil || !b.strong() {
		return 0, nil, fmt.Errorf("a signature with hash algorithm %#x", uint16(alg))
	}
	h := b.hash.New()
	h.Write(data)
	return b.hash, h.Sum(nil), nil
}

// checkPCRs checks that values are of exactly what the quote selects, and that it
// is they that are quoted; and that a strong bank has all PCRs of need.
func (q *quote) checkPCRs(values PCRs, need []int) error {
	h := q.hash.New()
	for _, s := range q.selection {
		for _, n := range s.pcrs {
			v := values.Get(s.bank.name, n)
			if v == nil {
				return fmt.Errorf("PCR %d of %s is quoted, and its value is missing", n, s.bank.name)
			}
			h.Write(v)
		}
	}
	for _, name := range values.names() {
		for _, n := range values.numbers(name) {
			if !q.selects(name, n) {
				return fmt.Errorf("PCR %d of %s has a value that is not quoted", n, name)
			}
		}
	}
	if !bytes.Equal(h.Sum(nil), q.digest) {
		return errors.New("the PCR values are not those that were quoted")
	}
	for _, b := range values.banks() {
		if b.strong() && values.has(b.name, need) {
			return nil
		}
	}
	return fmt.Errorf("no bank stronger than SHA-1 is quoted with PCRs %s", ranges(need))
}

func (q *quote) selects(bank string, pcr int) bool {
	return slices.ContainsFunc(q.selection, func(s selected) bool {
		return s.bank.name == bank && slices.Contains(s.pcrs, pcr)
	})
}
