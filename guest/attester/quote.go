// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/vtpm/attest"
)

// maxQuotes is how often a quote is tried: a PCR may be extended after it was read.
const maxQuotes = 16

// errChanged: a PCR was extended between the values and the quote.
var errChanged = errors.New("attester: the machine extends PCRs all the time")

// quote gives a quote with the values that are quoted.
func (a *Attester) quote(ctx context.Context, nonce []byte, s Selection) (*attest.Layer, error) {
	want, err := s.of(a.tpm)
	if err != nil {
		return nil, err
	}
	for range maxQuotes {
		layer, err := a.quoteOnce(ctx, nonce, want)
		if !errors.Is(err, errChanged) {
			return layer, err
		}
	}
	return nil, errChanged
}

func (a *Attester) quoteOnce(ctx context.Context, nonce []byte, want tpm2.TPMLPCRSelection) (*attest.Layer, error) {
	values, err := readPCRs(a.tpm, want)
	if err != nil {
		return nil, err
	}
	q, err := a.key.Quote(ctx, nonce, want)
	if err != nil {
		return nil, err
	}
	att, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
	if err != nil {
		return nil, fmt.Errorf("attester: quote: %w", err)
	}
	info, err := att.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("attester: quote: %w", err)
	}
	if !bytes.Equal(info.PCRDigest.Buffer, digest(values, info.PCRSelect)) {
		return nil, errChanged
	}
	return &attest.Layer{Quote: attest.Quote{Attest: q.Attest, Signature: q.Signature}, PCRs: values}, nil
}

// digest is over the values that a quote selects, in its order, by the hash of the
// AIK's scheme (TCG Part 1, "Attesting to PCR").
func digest(values attest.PCRs, quoted tpm2.TPMLPCRSelection) []byte {
	h := sha256.New()
	for _, s := range quoted.PCRSelections {
		for _, n := range numbers(s) {
			h.Write(values.Get(banks[s.Hash], n))
		}
	}
	return h.Sum(nil)
}
