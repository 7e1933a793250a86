// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/coproc/abi"
)

// checkAIK checks that the vTPM AIK was proven to live beside the EK of the other
// chain: the authority wrote into its certificate which EK it challenged. The name
// alone would not do: hosts can certify an EK in any machine's name.
func checkAIK(aik chain, vm string, ek *ekChain) error {
	if vm != ek.vm {
		return fmt.Errorf("the AIK is of the machine %s, the EK of %s", vm, ek.vm)
	}
	beside, err := ca.EKOf(aik[0])
	if err != nil {
		return err
	}
	if beside != ca.EKDigest(ek.ek()) {
		return errors.New("the AIK was proven beside another EK than this one")
	}
	return nil
}

// verifyStatement opens what the chain's card signed.
func verifyStatement(b []byte, c *ekChain) (abi.Statement, error) {
	key, ok := c.cardAIK().PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return abi.Statement{}, fmt.Errorf("the coprocessor has a key of type %T", c.cardAIK().PublicKey)
	}
	return abi.VerifyStatement(key, b)
}

// statement opens a signed statement of the chain's card.
func (v *Verifier) statement(b []byte, c *ekChain, kind abi.StatementType) (abi.Statement, error) {
	st, err := v.signedStatement(b, c, kind)
	switch {
	case err != nil:
		return st, err
	case st.Type != kind:
		return st, fmt.Errorf("it is a statement of type %d, not %d", st.Type, kind)
	case hex.EncodeToString(st.Serial[:]) != c.card:
		return st, fmt.Errorf("it is of the coprocessor %x, not %s", st.Serial, c.card)
	case time.Unix(st.Time, 0).After(v.Now.Add(ca.Skew)):
		return st, fmt.Errorf("it was made in the future, on %s", date(time.Unix(st.Time, 0)))
	}
	return st, nil
}

// ekStatement opens the statement of a slot's endorsement keys.
func (v *Verifier) ekStatement(b []byte, c *ekChain) (abi.Statement, []abi.EK, error) {
	st, err := v.statement(b, c, abi.StatementEK)
	if err != nil {
		return st, nil, err
	}
	body, err := abi.ParseEKBody(st.Body)
	return st, body.EKs, err
}

// checkEK checks that the certified key is an endorsement key, and that the card said
// that the slot has it.
func checkEK(public []byte, c *ekChain, stated []abi.EK) error {
	name, err := ekName(public, c.ek().PublicKey)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(stated, func(e abi.EK) bool { return bytes.Equal(e.Name, name) }) {
		return fmt.Errorf("the card's statement does not have the key %x", name)
	}
	return nil
}

// checkCard opens the quote by which the host's TPM binds the card.
func checkCard(q *Quote, c *ekChain) (*quote, error) {
	opened, err := openQuote(c.hostAIK().PublicKey, q)
	if err != nil {
		return nil, err
	}
	want := CardData(c.cardAIK().RawSubjectPublicKeyInfo)
	if !bytes.Equal(opened.extra, want[:]) {
		return nil, errors.New("the host's TPM bound another coprocessor")
	}
	return opened, nil
}

// sinceBinding tells how the binding of the card lies to a later quote of the same
// key. The offset of counts is the same in both, so their difference is true.
func sinceBinding(bound, now Clock) (text string, sameBoot bool, err error) {
	boots := int32(now.Resets - bound.Resets)
	sameBoot = boots == 0 && now.Restarts == bound.Restarts
	switch {
	case boots < 0, sameBoot && now.Milliseconds < bound.Milliseconds:
		return "", false, errors.New("the host's TPM bound the card after it made its quote: its clock went back")
	case sameBoot:
		return "in this boot of the host", true, nil
	case boots == 0:
		return "in this boot of the host, before it slept", false, nil
	}
	return fmt.Sprintf("%d boots of the host ago", boots), false, nil
}
