// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"fmt"

	"hwvtpm/coproc/abi"
)

// SetCertificates gives the card the certificates of its own key, DER: the
// coprocessor AIK's first, then its issuers', without a root. They replace the
// ones before; what was issued to slots stays good. The card checks that they are
// of its own key, of the profile, in time, and each signed by the next.
func (c *Client) SetCertificates(ctx context.Context, chain [][]byte) error {
	payload := bytes.Join(chain, nil)
	if len(payload) == 0 || len(payload) > abi.MaxCardCertificates {
		return failed(abi.OpCardCertify, "", fmt.Errorf("certificates of %d bytes, want 1 to %d", len(payload), abi.MaxCardCertificates))
	}
	_, err := ask(ctx, c, abi.Submission{Op: abi.OpCardCertify, Payload: payload}, "", empty)
	return err
}

// Certify has the card certify the endorsement keys of a slot and write the
// certificates into its NV memory, whether or not it has some already. The error
// is coproc.ErrInUse while the slot is open, or a run of its machine may go on.
// Without certificates of its own the card refuses.
func (c *Client) Certify(ctx context.Context, s abi.SlotInfo) error {
	return c.do(ctx, abi.OpSlotCertify, s, nil)
}

// EKCertificate gives the endorsement key of a slot at a persistent handle, and
// its certificate if there is one. The slot may be open. The error is
// coproc.ErrNotFound if the slot has no such key.
func (c *Client) EKCertificate(ctx context.Context, s abi.SlotInfo, handle uint32) (abi.EKCertificate, error) {
	sub := abi.Submission{Op: abi.OpEKCertificate, Slot: s.Number, Payload: abi.AppendHandle(nil, handle)}
	return ask(ctx, c, sub, s.Name, func(b []byte) (abi.EKCertificate, error) {
		cert, err := abi.ParseEKCertificate(b)
		if err == nil && cert.Handle != handle {
			err = fmt.Errorf("answer is about the key at %#x: %w", cert.Handle, abi.ErrMalformed)
		}
		return cert, err
	})
}
