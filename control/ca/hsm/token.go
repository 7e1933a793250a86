// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"

	"hwvtpm/control/ca"
)

// Token is an open token. Its methods, and the signers that it gives, may be used
// from any goroutine: one signs at a time. A process opens a module once.
type Token struct {
	mu      sync.Mutex // guards what follows: a session does one thing at a time
	ctx     *pkcs11.Ctx
	session pkcs11.SessionHandle
	closed  bool
}

var _ ca.Keys = (*Token)(nil)

// Open loads a module, such as libsofthsm2.so, and logs into the token of a label.
// pin is the user's; it is not kept.
func Open(module, label string, pin []byte) (_ *Token, err error) {
	ctx := pkcs11.New(module)
	if ctx == nil {
		return nil, fmt.Errorf("hsm: %s is no PKCS#11 module", module)
	}
	defer func() {
		if err != nil {
			ctx.Destroy()
		}
	}()
	if err := ctx.Initialize(); err != nil {
		return nil, fmt.Errorf("hsm: initialize %s: %w", module, err)
	}
	session, err := login(ctx, label, pin)
	if err != nil {
		return nil, errors.Join(err, ctx.Finalize())
	}
	return &Token{ctx: ctx, session: session}, nil
}

func login(ctx *pkcs11.Ctx, label string, pin []byte) (pkcs11.SessionHandle, error) {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("hsm: list slots: %w", err)
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil || info.Label != label {
			continue
		}
		session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return 0, fmt.Errorf("hsm: open a session of token %q: %w", label, err)
		}
		if err := ctx.Login(session, pkcs11.CKU_USER, string(pin)); err != nil {
			return 0, fmt.Errorf("hsm: log into token %q: %w", label, err)
		}
		return session, nil
	}
	return 0, fmt.Errorf("hsm: token %q: %w", label, fs.ErrNotExist)
}

// Close logs out. Signers fail afterwards. It may be called more than once.
func (t *Token) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	err := errors.Join(t.ctx.CloseSession(t.session), t.ctx.Finalize())
	t.ctx.Destroy()
	return err
}

// oidP256 is the curve's name, as CKA_EC_PARAMS has it: RFC 5480, 2.1.1.1.
var oidP256, _ = asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})

// Create implements ca.Keys: it makes an ECDSA P-256 key that can't leave the token.
func (t *Token) Create(name string) (crypto.Signer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch _, err := t.findLocked(pkcs11.CKO_PRIVATE_KEY, name); {
	case err == nil:
		return nil, fmt.Errorf("hsm: key %s: %w", name, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	both := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, name), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(name))}
	public := append(slices.Clone(both), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, oidP256))
	private := append(slices.Clone(both), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false))
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
	if _, _, err := t.ctx.GenerateKeyPair(t.session, mechanism, public, private); err != nil {
		return nil, fmt.Errorf("hsm: make key %s: %w", name, err)
	}
	return t.signerLocked(name)
}

// Open implements ca.Keys.
func (t *Token) Open(name string) (crypto.Signer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.signerLocked(name)
}

func (t *Token) signerLocked(name string) (crypto.Signer, error) {
	private, err := t.findLocked(pkcs11.CKO_PRIVATE_KEY, name)
	if err != nil {
		return nil, err
	}
	public, err := t.findLocked(pkcs11.CKO_PUBLIC_KEY, name)
	if err != nil {
		return nil, err
	}
	attributes, err := t.ctx.GetAttributeValue(t.session, public, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, fmt.Errorf("hsm: read key %s: %w", name, err)
	}
	var point []byte
	if _, err := asn1.Unmarshal(attributes[1].Value, &point); err != nil || !bytes.Equal(attributes[0].Value, oidP256) {
		return nil, fmt.Errorf("hsm: key %s is not one on P-256", name)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("hsm: key %s: %w", name, err)
	}
	return &signer{token: t, handle: private, key: key}, nil
}

// findLocked gives the one object of a class and label.
func (t *Token) findLocked(class uint, label string) (pkcs11.ObjectHandle, error) {
	if t.closed {
		return 0, fmt.Errorf("hsm: %w", fs.ErrClosed)
	}
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
	if err := t.ctx.FindObjectsInit(t.session, template); err != nil {
		return 0, fmt.Errorf("hsm: find key %s: %w", label, err)
	}
	found, _, err := t.ctx.FindObjects(t.session, 2)
	if err = errors.Join(err, t.ctx.FindObjectsFinal(t.session)); err != nil {
		return 0, fmt.Errorf("hsm: find key %s: %w", label, err)
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("hsm: key %s: %w", label, fs.ErrNotExist)
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("hsm: more than one key is called %s", label)
}

// signer is a private key in the token.
type signer struct {
	token  *Token
	handle pkcs11.ObjectHandle
	key    *ecdsa.PublicKey
}

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.key }

// Sign implements crypto.Signer. The token's own randomness is used.
func (s *signer) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	t := s.token
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("hsm: %w", fs.ErrClosed)
	}
	if err := t.ctx.SignInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, s.handle); err != nil {
		return nil, fmt.Errorf("hsm: sign: %w", err)
	}
	raw, err := t.ctx.Sign(t.session, digest)
	if err != nil {
		return nil, fmt.Errorf("hsm: sign: %w", err)
	}
	if len(raw) != 64 {
		return nil, fmt.Errorf("hsm: a signature of %d bytes", len(raw))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
}
