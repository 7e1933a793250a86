// SPDX-License-Identifier: Apache-2.0

package bootevidence

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/hostpcr"
)

// ErrMalformed: the bytes are no evidence, or of a version that is not known.
var ErrMalformed = errors.New("malformed boot evidence")

// label begins what the qualifying data is the hash of: see package attest for the
// others.
const label = "hwvtpm boot evidence 1"

// Qualifying is the qualifying data of the quote, so that what was made for one run of
// one machine serves no other:
//
//	SHA-256("hwvtpm boot evidence 1" || run id || name of the slot)
func Qualifying(run coproc.RunID, slot string) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write(run[:])
	h.Write([]byte(slot))
	return [sha256.Size]byte(h.Sum(nil))
}

// Evidence is PCR 0-7 of a host when a run of a machine began.
type Evidence struct {
	Run  coproc.RunID
	Slot string // which is the machine's name

	// AIK is the SHA-256 of the certificate, in DER, of the key that quotes; zero if
	// it had none yet.
	AIK [sha256.Size]byte

	Attest    []byte        // TPMS_ATTEST of the quote
	Signature []byte        // TPMT_SIGNATURE
	PCRs      coproc.PCRMap // that were quoted
}

// New makes evidence of a quote that was made for Qualifying(run, slot) alone, and of
// the values that it is of. certificate, in DER, is that of the key; nil: it has none.
func New(run coproc.RunID, slot string, certificate []byte, quote *hostpcr.Quote, values *coproc.PCRMap) (*Evidence, error) {
	want := Qualifying(run, slot)
	if !bytes.Equal(quote.Qualifying(), want[:]) {
		return nil, errors.New("boot evidence: the quote was made for something else")
	}
	e := &Evidence{Run: run, Slot: slot, Attest: quote.Attest, Signature: quote.Signature, PCRs: *values}
	if certificate != nil {
		e.AIK = sha256.Sum256(certificate)
	}
	return e, e.check()
}

// check tells whether e has a wire form.
func (e *Evidence) check() error {
	switch n := e.size(); {
	case !abi.ValidName(e.Slot):
		return fmt.Errorf("boot evidence: %q is no name of a slot: %w", e.Slot, ErrMalformed)
	case len(e.Attest) == 0 || len(e.Signature) == 0 || e.PCRs.Banks() == 0:
		return fmt.Errorf("boot evidence: a quote without signature or values: %w", ErrMalformed)
	case n > abi.MaxBootEvidence:
		return fmt.Errorf("boot evidence of %d bytes, an NV index holds %d: %w", n, abi.MaxBootEvidence, ErrMalformed)
	}
	return nil
}

// Verify checks that the host's TPM that has the key made the quote, for this run of
// this machine, and of these PCRs. The error is hostpcr.ErrQuote. That the key is a
// TPM's, and whose, is for its certificate to say.
func (e *Evidence) Verify(key crypto.PublicKey) error {
	nonce := Qualifying(e.Run, e.Slot)
	q := hostpcr.Quote{Attest: e.Attest, Signature: e.Signature, Nonce: nonce[:]}
	return q.Verify(key, &e.PCRs)
}
