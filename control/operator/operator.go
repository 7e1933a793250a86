// SPDX-License-Identifier: Apache-2.0

// Package operator is what people do with the control server: give tokens, allow
// and keep out, revoke, look at records. Everything that changes something is in
// the audit log before its result is given.
package operator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/revoke"
	"hwvtpm/control/store"
)

// ErrInvalid is returned for a request that makes no sense.
var ErrInvalid = errors.New("operator: invalid")

// Operator's methods may be called from any goroutine.
type Operator struct {
	Store   store.Store
	Journal *audit.Journal
	Now     func() time.Time
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Kind  string        `json:"kind"`
	Name  string        `json:"name"`
	Life  time.Duration `json:"life"`  // nanoseconds
	Reuse bool          `json:"reuse"` // good until it ends, rather than once
}

// Token is a token, shown this once: the store has only its hash.
type Token struct {
	Token   string    `json:"token"`
	Kind    string    `json:"kind"`
	Name    string    `json:"name"`
	Expires time.Time `json:"expires"`
}

const maxTokenLife = 366 * 24 * time.Hour

// NewToken makes a token with which a TPM may enrol under a name.
func (o *Operator) NewToken(ctx context.Context, r TokenRequest) (*Token, error) {
	if err := checkSubject(r.Kind, r.Name); err != nil {
		return nil, err
	}
	if r.Life <= 0 || r.Life > maxTokenLife {
		return nil, fmt.Errorf("%w: a token for %v", ErrInvalid, r.Life)
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	t := &Token{Token: hex.EncodeToString(secret), Kind: r.Kind, Name: r.Name, Expires: o.Now().Add(r.Life).UTC()}
	hash := enrol.TokenHash(t.Token)
	err := o.Store.Update(ctx, func(tx store.Tx) error {
		return store.Tokens.Put(tx, hash, store.Token{
			Hash: hash, Kind: r.Kind, Name: r.Name, Reuse: r.Reuse, Created: o.Now().UTC(), Expires: t.Expires})
	})
	if err != nil {
		return nil, err
	}
	return t, o.record(ctx, "token", r.Kind, r.Name, map[string]string{"token": hash[:16], "until": t.Expires.Format(time.RFC3339)})
}

func checkSubject(kind, name string) error {
	if kind != store.KindHost && kind != store.KindVTPM {
		return fmt.Errorf("%w: no kind is called %.80q: host or vtpm", ErrInvalid, kind)
	}
	if !ca.ValidName(name) {
		return fmt.Errorf("%w: %w", ErrInvalid, ca.ErrName)
	}
	return nil
}

func checkHash(hash string) error {
	if b, err := hex.DecodeString(hash); err != nil || len(b) != 32 || hex.EncodeToString(b) != hash {
		return fmt.Errorf("%w: %.80q is no SHA-256 in small hexadecimal digits", ErrInvalid, hash)
	}
	return nil
}

// Allow lets the TPM of an EK enrol under a name without a token.
func (o *Operator) Allow(ctx context.Context, a store.Allow) error {
	if err := errors.Join(checkSubject(a.Kind, a.Name), checkHash(a.EK)); err != nil {
		return err
	}
	err := o.Store.Update(ctx, func(tx store.Tx) error { return store.Allowed.Put(tx, a.EK, a) })
	return o.done(ctx, err, "allow", a.Kind, a.Name, map[string]string{"ek": a.EK})
}

// Deny keeps a key out: an EK, an AIK or a card's, by its hash.
func (o *Operator) Deny(ctx context.Context, d store.Deny) error {
	if err := checkHash(d.Key); err != nil {
		return err
	}
	d.Time = o.Now().UTC()
	d.Reason = d.Reason[:min(len(d.Reason), 200)]
	err := o.Store.Update(ctx, func(tx store.Tx) error { return store.Denied.Put(tx, d.Key, d) })
	return o.done(ctx, err, "deny", "", "", map[string]string{"key": d.Key, "reason": d.Reason})
}

// Pin lets the holder of a TLS key speak as a host.
func (o *Operator) Pin(ctx context.Context, p store.Pin) error {
	if err := errors.Join(checkSubject(store.KindHost, p.Host), checkHash(p.Key)); err != nil {
		return err
	}
	err := o.Store.Update(ctx, func(tx store.Tx) error { return store.Pins.Put(tx, p.Key, p) })
	return o.done(ctx, err, "pin", store.KindHost, p.Host, map[string]string{"key": p.Key})
}

// RevokeRequest says what to take back: one certificate by its Serial, or all that
// a host or machine has, with what would let it enrol again: its record, tokens,
// pins and allowances.
type RevokeRequest struct {
	Serial string    `json:"serial,omitempty"`
	Kind   string    `json:"kind,omitempty"`
	Name   string    `json:"name,omitempty"`
	Reason ca.Reason `json:"reason"`
}

// Revoke gives the serials of the certificates that it took back.
func (o *Operator) Revoke(ctx context.Context, r RevokeRequest) (serials []string, err error) {
	switch r.Reason {
	case ca.ReasonUnspecified, ca.ReasonKeyCompromise, ca.ReasonSuperseded, ca.ReasonCessation:
	default:
		return nil, fmt.Errorf("%w: reason %d", ErrInvalid, r.Reason)
	}
	if r.Serial == "" {
		if err := checkSubject(r.Kind, r.Name); err != nil {
			return nil, err
		}
	}
	err = o.Store.Update(ctx, func(tx store.Tx) (err error) {
		if r.Serial != "" {
			serials = []string{r.Serial}
			return revoke.Mark(tx, r.Serial, r.Reason, o.Now())
		}
		serials, err = o.revokeSubject(tx, r)
		return err
	})
	detail := map[string]string{"serials": fmt.Sprint(serials), "reason": fmt.Sprint(int(r.Reason))}
	return serials, o.done(ctx, err, "revoke", r.Kind, r.Name, detail)
}

func (o *Operator) revokeSubject(tx store.Tx, r RevokeRequest) (serials []string, err error) {
	profiles := []string{enrol.ProfileVTPMAIK}
	if r.Kind == store.KindHost {
		profiles = []string{enrol.ProfileHostAIK, enrol.ProfileTLSClient}
	}
	for _, p := range profiles {
		some, err := revoke.MarkSubject(tx, p, r.Name, r.Reason, o.Now())
		if err != nil {
			return nil, err
		}
		serials = append(serials, some...)
	}
	if r.Kind == store.KindHost {
		err = store.Hosts.Delete(tx, r.Name)
	} else {
		err = store.VMs.Delete(tx, r.Name)
	}
	return serials, errors.Join(err,
		forget(tx, store.Tokens, func(t store.Token) (string, bool) { return t.Hash, t.Kind == r.Kind && t.Name == r.Name }),
		forget(tx, store.Allowed, func(a store.Allow) (string, bool) { return a.EK, a.Kind == r.Kind && a.Name == r.Name }),
		forget(tx, store.Pins, func(p store.Pin) (string, bool) { return p.Key, r.Kind == store.KindHost && p.Host == r.Name }))
}

// forget removes the records that match.
func forget[T any](tx store.Tx, table store.Table[T], match func(T) (key string, ok bool)) error {
	all, err := table.All(tx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if key, ok := match(v); ok {
			if err := table.Delete(tx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Records is all that is known, but for what is secret or large.
type Records struct {
	Hosts        []store.Host        `json:"hosts"`
	VMs          []store.VM          `json:"vms"`
	Certificates []store.Certificate `json:"certificates"`
	Tokens       []store.Token       `json:"tokens"`
	Allowed      []store.Allow       `json:"allowed"`
	Denied       []store.Deny        `json:"denied"`
	Pins         []store.Pin         `json:"pins"`
}

// List gives the records as they are at one moment.
func (o *Operator) List(ctx context.Context) (*Records, error) {
	var r Records
	err := o.Store.View(ctx, func(tx store.Tx) error {
		var errs [7]error
		r.Hosts, errs[0] = store.Hosts.All(tx)
		r.VMs, errs[1] = store.VMs.All(tx)
		r.Certificates, errs[2] = store.Certificates.All(tx)
		r.Tokens, errs[3] = store.Tokens.All(tx)
		r.Allowed, errs[4] = store.Allowed.All(tx)
		r.Denied, errs[5] = store.Denied.All(tx)
		r.Pins, errs[6] = store.Pins.All(tx)
		return errors.Join(errs[:]...)
	})
	return &r, err
}

// done records what was tried and succeeded.
func (o *Operator) done(ctx context.Context, err error, event, kind, name string, detail map[string]string) error {
	if err != nil {
		return err
	}
	return o.record(ctx, event, kind, name, detail)
}

func (o *Operator) record(ctx context.Context, event, kind, name string, detail map[string]string) error {
	return o.Journal.Record(ctx, audit.Event{Event: event, Actor: "operator", Kind: kind, Name: name, Detail: detail})
}
