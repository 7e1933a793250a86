// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"hwvtpm/control/ca"
)

// What a cache remembers ends with the certificates, and counts for its roots only.
func TestCacheForgets(t *testing.T) {
	ev, v := ok[*Evidence](t)(Parse(golden(t, "evidence.json"))), goldenVerifier(t)
	v.Cache = NewCache()
	for name, tc := range map[string]struct {
		change func(*Verifier)
		want   []string
	}{
		"nothing changed":   {func(*Verifier) {}, nil},
		"after their end":   {func(v *Verifier) { v.Now, v.Lists = now.Add(31*24*time.Hour), nil }, []string{"vm.chain", "binding.chain", "vm.quote"}},
		"before their time": {func(v *Verifier) { v.Now = now.Add(-24 * time.Hour) }, []string{"vm.chain", "binding.chain", "revocation"}},
		"other roots":       {func(v *Verifier) { v.Roots = x509.NewCertPool() }, []string{"vm.chain", "binding.chain", "revocation"}},
		"no roots":          {func(v *Verifier) { v.Roots = nil }, []string{"vm.chain", "binding.chain", "revocation"}},
		"lists ended":       {func(v *Verifier) { v.Now = now.Add(48 * time.Hour) }, []string{"revocation"}},
		"one list less":     {func(v *Verifier) { v.Lists = v.Lists[:1] }, []string{"revocation"}},
	} {
		if r := ok[*Result](t)(v.Verify(ev, nonce)); !r.OK {
			t.Fatalf("the evidence does not hold: %+v", r.Claims)
		}
		w := *v
		tc.change(&w)
		r := ok[*Result](t)(w.Verify(ev, nonce))
		if unmet := r.Unmet(); !reflect.DeepEqual(unmet[:min(len(unmet), len(tc.want))], tc.want) {
			t.Errorf("%s: unmet %v, want %v first", name, unmet, tc.want)
		}
		w.Cache = nil
		if cold := ok[*Result](t)(w.Verify(ev, nonce)); !reflect.DeepEqual(cold, r) {
			t.Errorf("%s: %+v\nwithout a cache: %+v", name, r, cold)
		}
	}
}

// A revocation counts at once, for all who are in the cache.
func TestCacheKnowsNoRevocation(t *testing.T) {
	s := newSite(t, newAuthority(t), "host-1")
	m := s.newMachine("vm-1")
	v, ev := s.verifier(), through(t, m.answer(nonce))
	v.Cache, v.Lists = NewCache(), s.lists()
	if r := ok[*Result](t)(v.Verify(ev, nonce)); !r.OK {
		t.Fatalf("the evidence does not hold: %+v", r.Claims)
	}
	for _, cert := range []*x509.Certificate{m.aikCert, s.hostCert} {
		v.Lists = s.lists(cert)
		if r := ok[*Result](t)(v.Verify(ev, nonce)); r.OK || r.Get(ClaimRevocation).State != Failed {
			t.Errorf("%s was revoked: %+v", cert.Subject.CommonName, r.Claims)
		}
	}
}

// Issuers that have a say on leaves are not remembered for other leaves.
func TestCacheKeepsNoConstraints(t *testing.T) {
	extension := func(oid ...int) pkix.Extension { return pkix.Extension{Id: oid, Value: []byte{0x30, 0}} }
	plain := ok[[]*x509.Certificate](t)(ca.ParsePEM(golden(t, "root.pem")))[0]
	for _, tc := range []struct {
		name string
		ext  pkix.Extension
		want bool
	}{
		{"none", extension(2, 5, 29, 19), false}, {"name constraints", extension(2, 5, 29, 30), true},
		{"policies", extension(2, 5, 29, 32), true}, {"policy constraints", extension(2, 5, 29, 36), true},
		{"any policy", extension(2, 5, 29, 54), true}, {"unknown", extension(1, 2, 3), true},
	} {
		c := *plain
		c.Extensions = append(c.Extensions[:len(c.Extensions):len(c.Extensions)], tc.ext)
		if got := constrains(&c); got != tc.want {
			t.Errorf("%s: constrains = %v, want %v", tc.name, got, tc.want)
		}
	}
}

// A machine that is new takes nothing but its leaf's signature from a host that is
// known, and a leaf that its issuer did not sign gains nothing by it.
func TestCacheUnderKnownIssuers(t *testing.T) {
	s := newSite(t, newAuthority(t), "host-1")
	first, second := s.newMachine("vm-1"), s.newMachine("vm-2")
	v := s.verifier()
	v.Cache = NewCache()
	build := func(m *machine, ek *x509.Certificate) (chain, error) {
		return v.build(string(ca.PEM(ek, m.cardCert, m.hostCert, m.authority.Attestation.Certificate)))
	}
	ok[chain](t)(build(first, first.ekCert))
	_, issuers := cutLeaf(string(ca.PEM(second.ekCert, s.cardCert, s.hostCert, s.authority.Attestation.Certificate)))
	above := chainKey{v.Roots, digestParts([]byte(issuers)), true}
	under := v.underKnown(string(ca.PEM(second.ekCert)), above)
	whole := ok[chain](t)(v.prove(string(ca.PEM(second.ekCert)) + issuers))
	if !reflect.DeepEqual(under, whole) {
		t.Errorf("under known issuers %d certificates, the whole proof has %d", len(under), len(whole))
	}
	forger := newSite(t, newAuthority(t), "host-1")
	forged := forger.newMachine("vm-2").ekCert
	for name, leaf := range map[string]string{
		"by another card": string(ca.PEM(forged)), "the issuer itself": string(ca.PEM(s.cardCert)),
		"two": string(ca.PEM(second.ekCert, first.ekCert)), "none": "", "garbage": pemEnd,
	} {
		if got := v.underKnown(leaf, above); got != nil {
			t.Errorf("%s: a chain of %d certificates", name, len(got))
		}
	}
	if _, err := build(second, forged); err == nil {
		t.Error("a forged leaf is built")
	}
}

func TestMemoIsBounded(t *testing.T) {
	m := newMemo[int, int](10)
	for i := range 1000 {
		m.put(i, i)
		if v, known := m.get(0); !known || v != 0 {
			t.Fatalf("after %d others, what is asked for all the time is forgotten", i)
		}
	}
	if n := len(m.young) + len(m.old); n > 20 {
		t.Errorf("%d values are remembered", n)
	}
	if _, known := m.get(500); known {
		t.Error("what nobody asked for is remembered")
	}
}

func TestCacheFromManyGoroutines(t *testing.T) {
	ev, v := ok[*Evidence](t)(Parse(golden(t, "evidence.json"))), goldenVerifier(t)
	v.Cache, v.Policy = NewCache(), &Policy{Host: LayerPolicy{SecureBoot: true}}
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() {
			for range 4 {
				if r, err := v.Verify(ev, nonce); err != nil || !r.OK {
					errs <- fmt.Errorf("%+v, %w", r, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}
