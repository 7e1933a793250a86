// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/x509"
	"reflect"
	"slices"
	"testing"

	"hwvtpm/control/ca"
)

// lab has two hosts of one authority, with machines, and a foreign authority.
type lab struct {
	t      testing.TB
	one    *site
	two    *site
	victim *machine // on host one
	beside *machine // on host one too
	far    *machine // on host two
	cache  *Cache   // of a verifier that has judged them all
	roots  *x509.CertPool
}

func newLab(t testing.TB) *lab {
	a := newAuthority(t)
	l := &lab{t: t, one: newSite(t, a, "host-1"), two: newSite(t, a, "host-2")}
	l.victim, l.beside, l.far = l.one.newMachine("vm-1"), l.one.newMachine("vm-2"), l.two.newMachine("vm-3")
	l.cache, l.roots = NewCache(), a.Roots()
	v := &Verifier{Roots: l.roots, Lists: l.one.lists(), Now: now, Cache: l.cache}
	for _, m := range []*machine{l.victim, l.beside, l.far} {
		if r := ok[*Result](t)(v.Verify(through(t, m.answer(nonce)), nonce)); !r.OK {
			t.Fatalf("the evidence of %s does not hold: %+v", m.name, r.Claims)
		}
	}
	return l
}

// attempt is evidence of the victim that holds, until an attack changes one thing.
type attempt struct {
	*lab
	ev    *Evidence
	v     *Verifier
	nonce []byte
}

func (l *lab) attempt(t testing.TB) *attempt {
	l.t, l.one.t, l.two.t = t, t, t
	a := &attempt{lab: l, ev: through(t, l.victim.answer(nonce)), v: l.one.verifier(), nonce: nonce}
	a.v.Roots = l.roots
	a.v.Policy = &Policy{Version: Version}
	return a
}

// hostFor makes a host's layer fit a machine's quote again, after that was changed.
func (a *attempt) hostFor(s *site) {
	fresh := HostNonce(a.nonce, a.ev.VM.Quote.Attest)
	layer := s.hostAIK.layer(fresh[:], firmware)
	layer.Log = a.ev.Host.Log
	a.ev.Host = &layer
	a.ev.Binding.Health = nil
}

// attack changes one thing; want are the claims that fail by it, and no other.
type attack struct {
	name   string
	change func(a *attempt)
	want   []Name
}

func TestAttacks(t *testing.T) {
	l := newLab(t)
	for _, at := range slices.Concat(chainAttacks, bindingAttacks, quoteAttacks, logAttacks, policyAttacks) {
		t.Run(at.name, func(t *testing.T) {
			a := l.attempt(t)
			if r := ok[*Result](t)(a.v.Verify(a.ev, a.nonce)); !r.OK {
				t.Fatalf("the evidence does not hold before the attack: %+v", r.Claims)
			}
			at.change(a)
			r := ok[*Result](t)(a.v.Verify(through(t, a.ev), a.nonce))
			l.sameWithCache(t, a, r)
			if r.OK {
				t.Error("the attack was not noticed")
			}
			var failed []Name
			for _, c := range r.Claims {
				if c.State != Failed {
					continue
				}
				failed = append(failed, c.Name)
				t.Logf("%s: %s", c.Name, c.Reason)
				if c.Reason == "" {
					t.Errorf("%s failed without a reason", c.Name)
				}
			}
			if !slices.Equal(failed, at.want) {
				t.Errorf("failed claims %v, want %v", failed, at.want)
			}
		})
	}
}

// sameWithCache judges an attempt with a cache that knows all the lab's machines, and
// then with what that attempt itself may have left there.
func (l *lab) sameWithCache(t *testing.T, a *attempt, want *Result) {
	t.Helper()
	v := *a.v
	v.Cache = l.cache
	for _, when := range []string{"first", "second"} {
		if got := ok[*Result](t)(v.Verify(through(t, a.ev), a.nonce)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s time with a cache: %+v\nwithout: %+v", when, got.Claims, want.Claims)
		}
	}
}

// chainOf puts a chain together, with the authority and without the root.
func (a *attempt) chainOf(certs ...*certificate) string {
	return string(ca.PEM(append(certs, a.one.authority.Attestation.Certificate)...))
}
