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

// Sizes of buffers in a quote: TCG Part 2, TPM2B_NAME, TPM2B_DATA and TPM2B_DIGEST
// with the longest hash.
const (
	maxName   = 2 + 64
	maxData   = 2 + 64
	maxDigest = 64
)

// openQuote checks a quote's signature and form. A restricted key never signs data
// from outside that begins with the magic of a TPMS_ATTEST (TCG Part 1, "Restricted
// attribute"), so the magic counts as much as the signature.
func openQuote(key crypto.PublicKey, q *Quote) (*quote, error) {
	hash, err := checkSignature(key, q.Attest, q.Signature)
	if err != nil {
		return nil, err
	}
	out, err := parseQuote(q.Attest)
	if err != nil {
		return nil, err
	}
	out.hash = hash
	return out, nil
}

// parseQuote reads a TPMS_ATTEST of TPM2_Quote (TCG Part 2, "TPMS_ATTEST",
// "TPMS_QUOTE_INFO"):
//
//	0  magic            u32, TPM_GENERATED_VALUE
//	4  type             u16, TPM_ST_ATTEST_QUOTE
//	6  qualifiedSigner  u16 size, name
//	   extraData        u16 size, qualifying data
//	   clock            u64 milliseconds, u32 resets, u32 restarts, u8 safe
//	   firmwareVersion  u64
//	   pcrSelect        u32 count, each: u16 hash, u8 size, bits from PCR 0
//	   pcrDigest        u16 size, digest
func parseQuote(b []byte) (*quote, error) {
	w := &wire{rest: b}
	if magic := w.u32(); magic != uint32(tpm2.TPMGeneratedValue) {
		return nil, fmt.Errorf("what is signed begins with %#x: no TPM made it", magic)
	}
	if kind := w.u16(); kind != uint16(tpm2.TPMSTAttestQuote) {
		return nil, fmt.Errorf("what is signed is an attestation of type %#x, not a quote", kind)
	}
	w.sized(maxName)
	q := &quote{extra: w.sized(maxData)}
	q.clock.Milliseconds, q.clock.Resets, q.clock.Restarts = w.u64(), w.u32(), w.u32()
	safe := w.u8()
	q.clock.Safe = safe == 1
	w.u64()
	if err := q.readSelection(w); err != nil {
		return nil, err
	}
	q.digest = w.sized(maxDigest)
	if !w.whole() || safe > 1 {
		return nil, errors.New("what is signed is no whole quote, or something stands behind its end")
	}
	return q, nil
}

// readSelection reads a TPML_PCR_SELECTION: each bank once.
func (q *quote) readSelection(w *wire) error {
	for range w.u32() {
		alg := tpm2.TPMAlgID(w.u16())
		bits := w.take(int(w.u8()))
		if w.broken {
			return errors.New("what is signed ends in its selection of PCRs")
		}
		b := bankOf(alg)
		if b == nil {
			return fmt.Errorf("the quote has a PCR bank of algorithm %#x", uint16(alg))
		}
		if slices.ContainsFunc(q.selection, func(o selected) bool { return o.bank == b }) {
			return fmt.Errorf("the quote has the bank %s twice", b.name)
		}
		one := selected{bank: b}
		for i, octet := range bits {
			for bit := range 8 {
				if octet&(1<<bit) != 0 {
					one.pcrs = append(one.pcrs, 8*i+bit)
				}
			}
		}
		q.selection = append(q.selection, one)
	}
	return nil
}

// checkSignature checks a TPMT_SIGNATURE of an attestation key (TCG Part 2,
// "TPMT_SIGNATURE"): u16 scheme, u16 hash, then r and s or the RSA signature, each
// behind its u16 size.
func checkSignature(key crypto.PublicKey, signed, signature []byte) (crypto.Hash, error) {
	w := &wire{rest: signature}
	scheme := tpm2.TPMAlgID(w.u16())
	hash, digest, err := digestOf(tpm2.TPMAlgID(w.u16()), signed)
	if err != nil {
		return 0, err
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		err = checkECDSA(key, scheme, digest, w)
	case *rsa.PublicKey:
		err = checkRSA(key, scheme, hash, digest, w)
	default:
		err = fmt.Errorf("a key of type %T signs no quotes", key)
	}
	return hash, err
}

var (
	errSignature      = errors.New("the signature is wrong")
	errSignatureBytes = errors.New("the signature is not whole, or something stands behind its end")
)

func checkECDSA(key *ecdsa.PublicKey, scheme tpm2.TPMAlgID, digest []byte, w *wire) error {
	if scheme != tpm2.TPMAlgECDSA {
		return fmt.Errorf("a signature of scheme %#x by an ECDSA key", uint16(scheme))
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	r, s := w.sized(size), w.sized(size)
	switch {
	case !w.whole():
		return errSignatureBytes
	case !ecdsa.Verify(key, digest, new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)):
		return errSignature
	}
	return nil
}

func checkRSA(key *rsa.PublicKey, scheme tpm2.TPMAlgID, hash crypto.Hash, digest []byte, w *wire) error {
	sig := w.sized(key.Size())
	if !w.whole() {
		return errSignatureBytes
	}
	var err error
	switch scheme {
	case tpm2.TPMAlgRSAPSS:
		err = rsa.VerifyPSS(key, hash, digest, sig, nil)
	case tpm2.TPMAlgRSASSA:
		err = rsa.VerifyPKCS1v15(key, hash, digest, sig)
	default:
		return fmt.Errorf("a signature of scheme %#x by an RSA key", uint16(scheme))
	}
	if err != nil {
		return errSignature
	}
	return nil
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
