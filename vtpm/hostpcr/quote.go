// SPDX-License-Identifier: Apache-2.0

package hostpcr

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // signatures may be over SHA-384 and SHA-512
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/coproc"
)

// errOtherValues: the quote is good, and of other values than were read.
var errOtherValues = fmt.Errorf("%w: PCRs changed meanwhile", ErrQuote)

// batchText begins what the qualifying data of a quote is the hash of, so that it is
// never what somebody else's protocol means by it.
const batchText = "hwvtpm host quote 1\x00"

// Quote is a quote of PCR 0-7, for everybody whose nonce is in it.
type Quote struct {
	Attest    []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE

	// Nonce is the qualifying data of a quote that is one caller's alone.
	Nonce []byte

	// Leaves are the SHA-256 of the nonces of a quote that is shared, in the order
	// in which they came. Without Config.Share there are none.
	Leaves [][sha256.Size]byte
}

// Leaf is what a nonce is in a quote.
func Leaf(nonce []byte) [sha256.Size]byte { return sha256.Sum256(nonce) }

// Qualifying is the qualifying data of the quote: the nonce, or, if it is shared,
// SHA-256 of a text that names this protocol, and the leaves.
func (q *Quote) Qualifying() []byte {
	if len(q.Leaves) == 0 {
		return q.Nonce
	}
	h := sha256.New()
	h.Write([]byte(batchText))
	for _, l := range q.Leaves {
		h.Write(l[:])
	}
	return h.Sum(nil)
}

// Fresh tells whether the quote was made for a nonce, if need be among others.
func (q *Quote) Fresh(nonce []byte) bool {
	if len(q.Leaves) == 0 {
		return bytes.Equal(q.Nonce, nonce)
	}
	return slices.Contains(q.Leaves, Leaf(nonce))
}

// quote has the TPM quote, for all nonces at once.
func quote(tpm transport.TPM, ak AK, used []bank, b *batch) (Quote, error) {
	q := Quote{}
	if !b.shared {
		q.Nonce = b.nonces[0]
	} else {
		for _, n := range b.nonces {
			q.Leaves = append(q.Leaves, Leaf(n))
		}
	}
	cmd := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: ak.Auth},
		QualifyingData: tpm2.TPM2BData{Buffer: q.Qualifying()},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection(used, 0xff),
	}
	rsp, err := cmd.Execute(tpm)
	for try := 1; try < tries && errors.Is(err, tpm2.TPMRCRetry); try++ {
		// The first use of a password after a start is noted in NV first.
		rsp, err = cmd.Execute(tpm)
	}
	if err != nil {
		return q, fmt.Errorf("%w: quote: %w", ErrTPM, err)
	}
	q.Attest, q.Signature = rsp.Quoted.Bytes(), tpm2.Marshal(rsp.Signature)
	return q, nil
}

// Verify checks that the quote was made by the TPM with this key, for its nonces, and
// of these values, in all of their banks and no others. The error is ErrQuote. That
// the key is a TPM's, and whose, is for a certificate to say.
func (q *Quote) Verify(key crypto.PublicKey, values *coproc.PCRMap) error {
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](q.Signature)
	if err != nil {
		return fmt.Errorf("%w: signature: %w", ErrQuote, err)
	}
	hash, err := verifySignature(key, q.Attest, sig)
	if err != nil {
		return fmt.Errorf("%w: signature: %w", ErrQuote, err)
	}
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuote, err)
	}
	if a.Magic != tpm2.TPMGeneratedValue || a.Type != tpm2.TPMSTAttestQuote {
		return fmt.Errorf("%w: the TPM signed something else", ErrQuote)
	}
	if !bytes.Equal(a.ExtraData.Buffer, q.Qualifying()) {
		return fmt.Errorf("%w: it is for other nonces", ErrQuote)
	}
	info, err := a.Attested.Quote()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuote, err)
	}
	return checkDigest(info, hash, values)
}

// checkDigest checks what was quoted: selection and digest of the values (Part 2,
// 10.12.4 and Part 1, "PCR Selection": by bank, and then by PCR).
func checkDigest(info *tpm2.TPMSQuoteInfo, hash crypto.Hash, values *coproc.PCRMap) error {
	h := hash.New()
	got := info.PCRSelect.PCRSelections
	for _, b := range banks {
		if values.Banks()&b.set == 0 {
			continue
		}
		if len(got) == 0 || got[0].Hash != b.alg || !bytes.Equal(bytes.TrimRight(got[0].PCRSelect, "\x00"), []byte{0xff}) {
			return fmt.Errorf("%w: it is of other PCRs", ErrQuote)
		}
		got = got[1:]
		for _, v := range bankValues(values, b.set) {
			h.Write(v)
		}
	}
	if len(got) != 0 {
		return fmt.Errorf("%w: it is of more PCRs", ErrQuote)
	}
	if !bytes.Equal(h.Sum(nil), info.PCRDigest.Buffer) {
		return errOtherValues
	}
	return nil
}

// verifySignature checks a signature of a TPM, and gives its hash. SHA-1 is refused.
func verifySignature(key crypto.PublicKey, msg []byte, sig *tpm2.TPMTSignature) (crypto.Hash, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return verifyRSA(k, msg, sig)
	case *ecdsa.PublicKey:
		s, err := sig.Signature.ECDSA()
		if err != nil {
			return 0, err
		}
		hash, digest, err := digestOf(s.Hash, msg)
		if err != nil {
			return 0, err
		}
		r, v := new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)
		if !ecdsa.Verify(k, digest, r, v) {
			return 0, errors.New("it is not of this key")
		}
		return hash, nil
	}
	return 0, fmt.Errorf("key of type %T", key)
}

func verifyRSA(k *rsa.PublicKey, msg []byte, sig *tpm2.TPMTSignature) (crypto.Hash, error) {
	if s, err := sig.Signature.RSASSA(); err == nil {
		hash, digest, err := digestOf(s.Hash, msg)
		if err != nil {
			return 0, err
		}
		return hash, rsa.VerifyPKCS1v15(k, hash, digest, s.Sig.Buffer)
	}
	s, err := sig.Signature.RSAPSS()
	if err != nil {
		return 0, err
	}
	hash, digest, err := digestOf(s.Hash, msg)
	if err != nil {
		return 0, err
	}
	return hash, rsa.VerifyPSS(k, hash, digest, s.Sig.Buffer, nil)
}

func digestOf(alg tpm2.TPMIAlgHash, msg []byte) (crypto.Hash, []byte, error) {
	hash, err := alg.Hash()
	if err != nil || hash == crypto.SHA1 || !hash.Available() {
		return 0, nil, fmt.Errorf("hash algorithm %#x", uint16(alg))
	}
	h := hash.New()
	h.Write(msg)
	return hash, h.Sum(nil), nil
}
