// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"time"

	"hwvtpm/coproc/abi"
)

// sign makes a statement. The card writes all of it but the nonce.
func (c *Card) sign(t abi.StatementType, slot [16]byte, nonce [32]byte, body []byte) ([]byte, error) {
	b := abi.AppendStatement(nil, &abi.Statement{
		Type: t, Time: time.Now().Unix(), Serial: c.serial, Slot: slot, Nonce: nonce, Body: body,
	})
	digest := sha256.Sum256(b)
	sig, err := ecdsa.SignASN1(rand.Reader, c.store.Identity(), digest[:])
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	return abi.AppendSignature(b, sig), nil
}

// state makes a statement that an administrator asks for.
func (s *Session) state(_ context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	req, err := abi.ParseStatementRequest(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	c := s.card
	switch {
	case req.Type == abi.StatementHealth && sub.Slot == abi.CardSlot:
		h := c.health()
		b, err := c.sign(req.Type, [16]byte{}, req.Nonce, abi.AppendCardHealth(nil, &h))
		return b, nil, err
	case req.Type == abi.StatementEK:
		slot, err := c.numbered(sub.Slot)
		if err != nil {
			return nil, nil, err
		}
		epoch, generation := c.store.Newest(slot.rec.ID)
		body := abi.AppendEKBody(nil, &abi.EKBody{
			Generation: generation, Epoch: epoch, AccessKey: slot.rec.AccessKey, EKs: slot.rec.EKs,
		})
		b, err := c.sign(req.Type, slot.rec.ID, req.Nonce, body)
		return b, nil, err
	case req.Type == abi.StatementErase:
		return nil, nil, refuse(abi.StatusBadField, "a receipt comes with the destruction, and at no other time")
	}
	return nil, nil, refuse(abi.StatusBadField, "no statement of type %d about slot %d", req.Type, sub.Slot)
}

func (s *Session) readKey(context.Context, *abi.Submission, []byte) ([]byte, *Grant, error) {
	return s.card.key, nil, nil
}

// measure is the firmware measurement: SHA-256 over the SHA-256 of this program
// and that of the engine, as they are now.
func measure(engine string) (m [32]byte, err error) {
	both := sha256.New()
	for _, path := range []string{"/proc/self/exe", engine} {
		sum, err := hashFile(path)
		if err != nil {
			return m, fmt.Errorf("measure firmware: %w", err)
		}
		both.Write(sum)
	}
	return [32]byte(both.Sum(nil)), nil
}

func hashFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
