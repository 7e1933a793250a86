// SPDX-License-Identifier: Apache-2.0

package revoke

import (
	"crypto/x509"
	"errors"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/control/store"
	"hwvtpm/control/store/bolt"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func newPublisher(t *testing.T) *Publisher {
	t.Helper()
	dir := t.TempDir()
	a, err := ca.Create(dir, "test", ca.FileKeys{Dir: dir}, now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &Publisher{Authority: a, Store: s, Life: time.Hour, RootLife: time.Hour}
}

func (p *Publisher) update(t *testing.T, f func(store.Tx) error) {
	t.Helper()
	if err := p.Store.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func (p *Publisher) list(t *testing.T, issuer string, at time.Time) *x509.RevocationList {
	t.Helper()
	der, err := p.Current(t.Context(), issuer, at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t *testing.T, p *Publisher, serial, profile, subject string, end time.Time) {
	p.update(t, func(tx store.Tx) error {
		return store.Certificates.Put(tx, serial, store.Certificate{
			Serial: serial, Issuer: ca.NameAttestation, Profile: profile, Subject: subject, NotAfter: end})
	})
}

func TestListsFollowRevocations(t *testing.T) {
	p := newPublisher(t)
	add(t, p, "0a", "vtpm-aik", "vm-1", now.Add(time.Hour))
	add(t, p, "0b", "vtpm-aik", "vm-1", now.Add(time.Hour))
	add(t, p, "0c", "vtpm-aik", "vm-2", now.Add(time.Hour))
	add(t, p, "0d", "vtpm-aik", "vm-1", now.Add(-time.Hour)) // has ended
	first := p.list(t, ca.NameAttestation, now)
	if n := len(first.RevokedCertificateEntries); n != 0 || first.Number.Int64() != 1 {
		t.Fatalf("first list: number %v, %d entries", first.Number, n)
	}
	if again := p.list(t, ca.NameAttestation, now.Add(20*time.Minute)); again.Number.Int64() != 1 {
		t.Errorf("a fresh list is signed again: number %v", again.Number)
	}
	p.update(t, func(tx store.Tx) error {
		serials, err := MarkSubject(tx, "vtpm-aik", "vm-1", ca.ReasonSuperseded, now)
		if len(serials) != 2 {
			t.Errorf("MarkSubject revokes %v", serials)
		}
		return errors.Join(err, Mark(tx, "0a", ca.ReasonKeyCompromise, now.Add(time.Hour)))
	})
	second := p.list(t, ca.NameAttestation, now)
	if second.Number.Int64() != 2 || len(second.RevokedCertificateEntries) != 2 {
		t.Fatalf("second list: %+v", second)
	}
	for _, e := range second.RevokedCertificateEntries {
		if (e.SerialNumber.Cmp(big.NewInt(10)) != 0 && e.SerialNumber.Cmp(big.NewInt(11)) != 0) || e.ReasonCode != int(ca.ReasonSuperseded) {
			t.Errorf("entry %+v", e)
		}
	}
	if l := p.list(t, ca.NameAttestation, now.Add(40*time.Minute)); l.Number.Int64() != 3 || !l.NextUpdate.Equal(now.Add(100*time.Minute)) {
		t.Errorf("a list past half its life: number %v, until %v", l.Number, l.NextUpdate)
	}
	if l := p.list(t, ca.NameAttestation, now.Add(48*time.Hour)); len(l.RevokedCertificateEntries) != 0 {
		t.Errorf("certificates that ended long ago are still listed: %v", l.RevokedCertificateEntries)
	}
}

func TestMarkUnknown(t *testing.T) {
	p := newPublisher(t)
	err := p.Store.Update(t.Context(), func(tx store.Tx) error { return Mark(tx, "ff", ca.ReasonUnspecified, now) })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Mark of an unknown serial: %v", err)
	}
	if _, err := p.Current(t.Context(), "nobody", now); err == nil {
		t.Error("a list of an unknown issuer")
	}
}

// A root that is kept elsewhere signs nothing, and its last list is given while
// it is good.
func TestRootElsewhere(t *testing.T) {
	p := newPublisher(t)
	p.list(t, ca.NameRoot, now)
	p.Authority.Root.Signer = nil
	if l := p.list(t, ca.NameRoot, now.Add(50*time.Minute)); l.Number.Int64() != 1 {
		t.Errorf("number %v", l.Number)
	}
	if _, err := p.Current(t.Context(), ca.NameRoot, now.Add(2*time.Hour)); !errors.Is(err, ca.ErrNoRootKey) {
		t.Errorf("an outdated list: %v, want ErrNoRootKey", err)
	}
}
