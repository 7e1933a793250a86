// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"

	"hwvtpm/firmware/sealed"
)

// createIdentity makes the card's own key: ECDSA P-256, as PKCS #8 (RFC 5958) in
// a sealed blob.
func (s *Store) createIdentity() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	defer clear(plain)
	blob, err := s.card.Seal(nil, sealed.KindIdentity, 1, s.anchor.Epoch(), plain)
	if err == nil {
		err = sealed.NewFile(s.path(identityName)).Create(blob)
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	s.identity = key
	return nil
}

func (s *Store) loadIdentity() error {
	blob, err := sealed.NewFile(s.path(identityName)).Read()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("identity: %w: %w", ErrIncomplete, err)
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	plain, _, err := s.card.Open(nil, sealed.KindIdentity, blob)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	defer clear(plain)
	key, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return fmt.Errorf("identity: %w: %w", err, sealed.ErrDamaged)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return fmt.Errorf("identity is no key for ECDSA P-256: %w", sealed.ErrDamaged)
	}
	s.identity = ec
	return nil
}

// Identity is the card's own key. It signs statements, which begin with a magic, and
// certificates, which begin as ASN.1 does: neither passes for the other.
func (s *Store) Identity() *ecdsa.PrivateKey { return s.identity }
