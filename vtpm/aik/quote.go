// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Quote is what TPM2_Quote gives, as it gives it (Part 3, "TPM2_Quote").
type Quote struct {
	Attest    []byte // TPMS_ATTEST, without a size
	Signature []byte // TPMT_SIGNATURE
}

// MaxQualifying is the most bytes that qualify a quote: a TPM2B_DATA holds a
// TPMT_HA, of the TPM's longest digest, which is SHA-256 at least.
const MaxQualifying = 64

// Quote has the TPM quote the PCRs of a selection, which may be empty, with
// qualifying data of at most MaxQualifying bytes. The key signs data of anybody's
// choice here: see that nobody chooses them who could mean something else by them.
func (h *Host) Quote(ctx context.Context, qualifying []byte, sel tpm2.TPMLPCRSelection) (*Quote, error) {
	if len(qualifying) > MaxQualifying {
		return nil, fmt.Errorf("aik: qualifying data of %d bytes, more than %d", len(qualifying), MaxQualifying)
	}
	var q *Quote
	err := h.do(ctx, func(t *lane) error {
		key, err := h.load(t)
		if err != nil {
			return err
		}
		rsp, err := tpm2.Quote{
			SignHandle:     key,
			QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			PCRSelect:      sel,
		}.Execute(t)
		if err != nil {
			return tpmError("quote", err)
		}
		q = &Quote{Attest: rsp.Quoted.Bytes(), Signature: tpm2.Marshal(rsp.Signature)}
		if err := q.check(qualifying); err != nil {
			return err
		}
		_, err = h.key.verify(q.Attest, &rsp.Signature)
		return err
	})
	if err != nil {
		return nil, err
	}
	return q, nil
}

// check checks that the TPM signed what it was asked for.
func (q *Quote) check(qualifying []byte) error {
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
	if err != nil {
		return fmt.Errorf("%w: quote: %w", ErrTPM, err)
	}
	if a.Magic != tpm2.TPMGeneratedValue || a.Type != tpm2.TPMSTAttestQuote || !bytes.Equal(a.ExtraData.Buffer, qualifying) {
		return fmt.Errorf("%w: it quoted something else", ErrTPM)
	}
	return nil
}

// Selection selects PCRs, by their numbers from 0 to 23, in banks.
func Selection(pcrs []uint, banks ...tpm2.TPMIAlgHash) tpm2.TPMLPCRSelection {
	var sel tpm2.TPMLPCRSelection
	for _, b := range banks {
		sel.PCRSelections = append(sel.PCRSelections, tpm2.TPMSPCRSelection{Hash: b, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)})
	}
	return sel
}
