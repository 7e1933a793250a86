// SPDX-License-Identifier: Apache-2.0

// Package revoke takes certificates back and publishes the lists that say so.
package revoke

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/control/store"
)

// Mark revokes a certificate by its serial, and makes the list of its issuer
// stale. One that is revoked already keeps its first time and reason.
func Mark(tx store.Tx, serial string, reason ca.Reason, now time.Time) error {
	c, err := store.Certificates.Get(tx, serial)
	if err != nil || c.Revoked != nil {
		return err
	}
	c.Revoked = &store.Revocation{Time: now.UTC(), Reason: int(reason)}
	if err := store.Certificates.Put(tx, serial, c); err != nil {
		return err
	}
	l, err := list(tx, c.Issuer)
	if err != nil {
		return err
	}
	l.DER = nil
	return store.Lists.Put(tx, c.Issuer, l)
}

// MarkSubject revokes all certificates of a host's or machine's profile that are
// still good, and gives their serials.
func MarkSubject(tx store.Tx, profile, subject string, reason ca.Reason, now time.Time) ([]string, error) {
	all, err := store.Certificates.All(tx)
	if err != nil {
		return nil, err
	}
	var serials []string
	for _, c := range all {
		if c.Profile != profile || c.Subject != subject || c.Revoked != nil || now.After(c.NotAfter) {
			continue
		}
		if err := Mark(tx, c.Serial, reason, now); err != nil {
			return nil, err
		}
		serials = append(serials, c.Serial)
	}
	return serials, nil
}

// list gives the newest list of an issuer, or one of number 0.
func list(tx store.Tx, issuer string) (store.List, error) {
	l, err := store.Lists.Get(tx, issuer)
	if errors.Is(err, store.ErrNotFound) {
		return store.List{Issuer: issuer}, nil
	}
	return l, err
}

// Publisher signs lists when they are asked for. Life is from a list to the time
// by which its successor is due; a new one is signed after half of it, and at
// once after a revocation. It may be used from any goroutine.
type Publisher struct {
	Authority *ca.Authority
	Store     store.Store
	Life      time.Duration
	RootLife  time.Duration // likewise for the root's list, whose key may be far away
}

func (p *Publisher) life(issuer string) time.Duration {
	if issuer == ca.NameRoot {
		return p.RootLife
	}
	return p.Life
}

// grace is how long an ended certificate stays in the lists: RFC 5280, 3.3 wants
// it in one list after its end.
const grace = 24 * time.Hour

// Current gives the list of an issuer, DER. Without the root's key the root's
// list is given as long as it is good.
func (p *Publisher) Current(ctx context.Context, issuer string, now time.Time) ([]byte, error) {
	var l store.List
	if err := p.Store.View(ctx, func(tx store.Tx) (err error) { l, err = list(tx, issuer); return err }); err != nil {
		return nil, err
	}
	if l.DER != nil && l.NextUpdate.Sub(now) > p.life(issuer)/2 {
		return l.DER, nil
	}
	signer, err := p.Authority.Issuer(issuer)
	if errors.Is(err, ca.ErrNoRootKey) && l.DER != nil && now.Before(l.NextUpdate) {
		return l.DER, nil
	} else if err != nil {
		return nil, fmt.Errorf("revoke: list of %s: %w", issuer, err)
	}
	err = p.Store.Update(ctx, func(tx store.Tx) (err error) {
		l, err = p.renew(tx, signer, issuer, now)
		return err
	})
	return l.DER, err
}

// renew signs the next list and stores it.
func (p *Publisher) renew(tx store.Tx, signer *ca.Issuer, issuer string, now time.Time) (store.List, error) {
	l, err := list(tx, issuer)
	if err != nil {
		return l, err
	}
	revoked, err := entries(tx, issuer, now)
	if err != nil {
		return l, err
	}
	l.Number++
	l.NextUpdate = now.Add(p.life(issuer)).UTC()
	if l.DER, err = signer.RevocationList(l.Number, revoked, ca.Validity{Now: now, Life: p.life(issuer)}); err != nil {
		return l, err
	}
	return l, store.Lists.Put(tx, issuer, l)
}

func entries(tx store.Tx, issuer string, now time.Time) ([]ca.Revoked, error) {
	all, err := store.Certificates.All(tx)
	if err != nil {
		return nil, err
	}
	var revoked []ca.Revoked
	for _, c := range all {
		if c.Issuer != issuer || c.Revoked == nil || now.After(c.NotAfter.Add(grace)) {
			continue
		}
		serial, ok := new(big.Int).SetString(c.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("revoke: serial %q is no number", c.Serial)
		}
		revoked = append(revoked, ca.Revoked{Serial: serial, Time: c.Revoked.Time, Reason: ca.Reason(c.Revoked.Reason)})
	}
	return revoked, nil
}
