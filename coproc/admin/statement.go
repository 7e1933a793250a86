// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"fmt"

	"hwvtpm/coproc/abi"
)

// CardKey is the public half of the key that a card signs with.
type CardKey struct {
	Public *ecdsa.PublicKey
	Serial [16]byte // of the card, made of the key
	DER    []byte   // SubjectPublicKeyInfo
}

// Signed is a statement whose signature was verified.
type Signed struct {
	abi.Statement
	Key CardKey
	Raw []byte // as the card gave it, with the signature
}

// CardKey gives the card's key. It is the card's own word: whoever wants to know
// that this is the right card compares the serial number.
func (c *Client) CardKey(ctx context.Context) (CardKey, error) {
	return ask(ctx, c, abi.Submission{Op: abi.OpCardKey}, "", func(b []byte) (CardKey, error) {
		pub, serial, err := abi.ParseCardKey(b)
		return CardKey{Public: pub, Serial: serial, DER: b}, err
	})
}

// EKStatement has the card vouch for the endorsement keys of a slot.
func (c *Client) EKStatement(ctx context.Context, s abi.SlotInfo) (Signed, abi.EKBody, error) {
	nonce := newNonce()
	sub := abi.Submission{Op: abi.OpStatement, Slot: s.Number, Payload: request(abi.StatementEK, nonce)}
	st, err := c.statement(ctx, sub, abi.StatementEK, s, nonce)
	if err != nil {
		return Signed{}, abi.EKBody{}, err
	}
	body, err := abi.ParseEKBody(st.Body)
	if err != nil {
		return Signed{}, abi.EKBody{}, failed(sub.Op, s.Name, err)
	}
	return st, body, nil
}

// HealthStatement has the card vouch for its state and firmware.
func (c *Client) HealthStatement(ctx context.Context) (Signed, abi.CardHealth, error) {
	return c.HealthStatementFor(ctx, newNonce())
}

// HealthStatementFor is HealthStatement with a nonce of the caller's, for somebody
// else to see that the statement is new.
func (c *Client) HealthStatementFor(ctx context.Context, nonce [32]byte) (Signed, abi.CardHealth, error) {
	sub := abi.Submission{Op: abi.OpStatement, Slot: abi.CardSlot, Payload: request(abi.StatementHealth, nonce)}
	st, err := c.statement(ctx, sub, abi.StatementHealth, abi.SlotInfo{}, nonce)
	if err != nil {
		return Signed{}, abi.CardHealth{}, err
	}
	body, err := abi.ParseCardHealth(st.Body)
	if err != nil {
		return Signed{}, abi.CardHealth{}, failed(sub.Op, "", err)
	}
	return st, body, nil
}

// Destroy destroys a slot that is not open, and gives the card's receipt. There
// is no way back: with the slot's key, every copy of its state is lost.
func (c *Client) Destroy(ctx context.Context, s abi.SlotInfo) (Signed, abi.EraseBody, error) {
	nonce := newNonce()
	sub := abi.Submission{Op: abi.OpSlotDestroy, Slot: s.Number, Payload: abi.AppendSlotRef(nil, &abi.SlotRef{ID: s.ID, Nonce: nonce})}
	st, err := c.statement(ctx, sub, abi.StatementErase, s, nonce)
	if err != nil {
		return Signed{}, abi.EraseBody{}, err
	}
	body, err := abi.ParseEraseBody(st.Body)
	if err == nil && body.Name != s.Name {
		err = fmt.Errorf("receipt is for slot %s: %w", body.Name, abi.ErrMalformed)
	}
	if err != nil {
		return Signed{}, abi.EraseBody{}, failed(sub.Op, s.Name, err)
	}
	return st, body, nil
}

func newNonce() (nonce [32]byte) {
	rand.Read(nonce[:]) // never fails
	return nonce
}

func request(kind abi.StatementType, nonce [32]byte) []byte {
	return abi.AppendStatementRequest(nil, &abi.StatementRequest{Type: kind, Nonce: nonce})
}

// statement executes a command that is answered by a statement, and verifies
// that this is what was asked for: signed by the card, new, of this type, about
// this slot.
func (c *Client) statement(ctx context.Context, sub abi.Submission, kind abi.StatementType, s abi.SlotInfo,
	nonce [32]byte) (Signed, error) {
	key, err := c.CardKey(ctx)
	if err != nil {
		return Signed{}, err
	}
	return ask(ctx, c, sub, s.Name, func(b []byte) (Signed, error) {
		st, err := abi.VerifyStatement(key.Public, b)
		if err != nil {
			return Signed{}, err
		}
		if st.Type != kind || st.Nonce != nonce || st.Slot != s.ID || st.Serial != key.Serial {
			return Signed{}, fmt.Errorf("statement is not the one asked for: %w", abi.ErrMalformed)
		}
		return Signed{Statement: st, Key: key, Raw: b}, nil
	})
}
