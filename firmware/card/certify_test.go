// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/ekcert"
	"hwvtpm/coproc/abi/ekcert/ekcerttest"
	"hwvtpm/firmware/provision"
	"hwvtpm/firmware/wire"
)

// certified gives a card certificates, and their authority.
func certified(t testing.TB, r *rig) *ekcerttest.Authority {
	t.Helper()
	a := ekcerttest.New(t)
	must(t, r.setChain(a.Certify(t, r.key, nil)))
	return a
}

func (r *rig) setChain(certs [][]byte) error {
	_, _, err := do(r.admin, abi.OpCardCertify, 0, bytes.Join(certs, nil))
	return err
}

func (r *rig) certificate(name string, handle uint32) (abi.EKCertificate, error) {
	r.t.Helper()
	b, _, err := do(r.admin, abi.OpEKCertificate, r.show(name).Number, abi.AppendHandle(nil, handle))
	if err != nil {
		return abi.EKCertificate{}, err
	}
	return abi.ParseEKCertificate(b)
}

const fakeHandle = 0x81010001 // of the fake worker's endorsement key

func TestCreationCertifies(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("before")
	got, err := r.certificate("before", fakeHandle)
	if err != nil || len(got.Public) == 0 || len(got.DER) != 0 || got.Index != 0 {
		t.Errorf("without a chain: %+v, %v", got, err)
	}
	a := certified(t, r)
	r.create("after")
	got, err = r.certificate("after", fakeHandle)
	must(t, err)
	ek, vm := a.Verify(t, got.DER, r.chain.der)
	key, _, err := provision.ParseEK(got.Public)
	must(t, err)
	if same := ek.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); vm != "after" || !same.Equal(key) || got.Index != abi.IndexRSAEK {
		t.Errorf("certificate for %q in %#x", vm, got.Index)
	}
	if !ek.NotAfter.Equal(ekcert.Forever) {
		t.Errorf("it ends %v", ek.NotAfter)
	}
	if _, err := r.certificate("after", 0x81010016); statusOf(err) != abi.StatusNoSlot {
		t.Errorf("a key that the slot does not have: %v", err)
	}
	for _, op := range []abi.Opcode{abi.OpCardCertify, abi.OpSlotCertify, abi.OpEKCertificate} {
		other := r.NewSession(Principal{Name: "nobody"})
		if _, _, err := do(other, op, 0, nil); statusOf(err) != abi.StatusDenied {
			t.Errorf("%#x for everybody: %v", op, err)
		}
	}
}

// TestCertificateBegins: with what is above it, whatever the card's clock says.
func TestCertificateBegins(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	certified(t, r)
	authority := *r.chain.certs[len(r.chain.certs)-1]
	authority.NotBefore = time.Now().Add(-1000 * time.Hour).UTC().Truncate(time.Second)
	ch := &chain{certs: append(slices.Clone(r.chain.certs[:len(r.chain.certs)-1]), &authority)}
	der, err := r.issue(ch, "a", ekcert.Model{}, r.store.Identity().Public())
	must(t, err)
	if cert, err := x509.ParseCertificate(der); err != nil || !cert.NotBefore.Equal(authority.NotBefore) {
		t.Errorf("%v, it begins %v, and its authority %v", err, cert.NotBefore, authority.NotBefore)
	}
}

// TestCertifyLater: the state is a new one, and otherwise what it was.
func TestCertifyLater(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	r.create("a")
	wantStatus(t, r.on(abi.OpSlotCertify, "a", nil), abi.StatusOrder)
	certified(t, r)
	c := r.open("a")
	c.want(t, "add", "1")
	wantStatus(t, r.on(abi.OpSlotCertify, "a", nil), abi.StatusInUse)
	c.close()
	r.await("a", abi.LifeClosed)
	before := r.show("a")
	must(t, r.on(abi.OpSlotCertify, "a", nil))
	if after := r.show("a"); after.Generation != before.Generation+1 || after.Life != abi.LifeClosed || after.EKNames != before.EKNames {
		t.Errorf("before %+v, after %+v", before, after)
	}
	must(t, r.Close())
	r = openCard(t, cfg)
	got, err := r.certificate("a", fakeHandle)
	if err != nil || len(got.DER) == 0 {
		t.Errorf("after a restart of the card: %+v, %v", got, err)
	}
	r.create("b")
	if got, err := r.certificate("b", fakeHandle); err != nil || len(got.DER) == 0 {
		t.Errorf("a slot that is made after a restart: %+v, %v", got, err)
	}
	r.open("a").want(t, "add", "2")
}

// TestRenewedChain: a new certificate of the card's is good for what was issued
// under the one before.
func TestRenewedChain(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	a := certified(t, r)
	r.create("a")
	must(t, r.setChain(a.Certify(t, r.key, func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Minute) })))
	got, err := r.certificate("a", fakeHandle)
	must(t, err)
	a.Verify(t, got.DER, r.chain.der)
}

func TestChainRefused(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	a := ekcerttest.New(t)
	good := a.Certify(t, r.key, nil)
	other := openCard(t, fakeConfig(t))
	ended := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = c.NotBefore.Add(-time.Hour), time.Now().Add(-time.Minute)
	}
	for name, chain := range map[string][][]byte{
		"nothing":      nil,
		"garbage":      {[]byte("garbage")},
		"cut":          {good[0], good[1][:100]},
		"alone":        good[:1],
		"another card": a.Certify(t, other.key, nil),
		"another host": {good[0], ekcerttest.New(t).Host.Raw},
		"out of order": {good[0], good[2], good[1]},
		"host first":   good[1:],
		"ended":        a.Certify(t, r.key, ended),
		"to come":      a.Certify(t, r.key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
		"not a CA": a.Certify(t, r.key, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage, c.MaxPathLenZero = false, x509.KeyUsageDigitalSignature, false
		}),
		"longer path":      a.Certify(t, r.key, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 1, false }),
		"another subject":  a.Certify(t, r.key, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "card"} }),
		"issued by a leaf": {good[0], issuedBy(t, a, r)},
		"oversize":         {good[0], good[1], good[2], make([]byte, abi.MaxCardCertificates)},
		"too many":         append(append([][]byte{}, good...), bytes.Repeat(good[2], 8)),
		"trailing":         {good[0], good[1], good[2], {0}},
	} {
		if err := r.setChain(chain); statusOf(err) != abi.StatusBadField {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	if _, err := r.issuers(); statusOf(err) != abi.StatusOrder {
		t.Errorf("after all that: %v", err)
	}
	must(t, r.setChain(good))
}

// issuedBy is a certificate with the host's name and key usage, but not a CA.
func issuedBy(t *testing.T, a *ekcerttest.Authority, r *rig) []byte {
	t.Helper()
	leaf := ekcert.Base(a.Host.Subject.CommonName, ekcert.Validity{Now: time.Now(), Life: time.Hour})
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	return ekcerttest.Issue(t, leaf, leaf, r.store.Identity().Public(), r.store.Identity()).Raw
}

// TestDamagedCertificates: they are not used, and say so; slots work without.
func TestDamagedCertificates(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	certified(t, r)
	info := r.create("a")
	must(t, r.Close())
	chain := filepath.Join(cfg.Dir, "certificates")
	mine := filepath.Join(cfg.Dir, "slots", hex.EncodeToString(info.ID[:]), "certificates")
	whole, err := os.ReadFile(mine)
	must(t, err)
	for name, damage := range map[string]func(b []byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)-1] },
		"changed": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"empty":   func([]byte) []byte { return nil },
		"key":     func(b []byte) []byte { b[16+16+30] ^= 1; return b },
	} {
		must(t, os.WriteFile(mine, damage(bytes.Clone(whole)), 0o600))
		must(t, os.WriteFile(chain, []byte("damaged"), 0o600))
		r := openCard(t, cfg)
		if _, err := r.certificate("a", fakeHandle); statusOf(err) != abi.StatusCorrupt {
			t.Errorf("%s: %v, want it refused", name, err)
		}
		wantStatus(t, r.on(abi.OpSlotCertify, "a", nil), abi.StatusCorrupt)
		c := r.open("a")
		if _, err := c.run("add"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.close()
		r.await("a", abi.LifeClosed)
		certified(t, r)
		must(t, r.on(abi.OpSlotCertify, "a", nil))
		if got, err := r.certificate("a", fakeHandle); err != nil || len(got.DER) == 0 {
			t.Errorf("%s, certified again: %+v, %v", name, got, err)
		}
		must(t, r.Close())
	}
}

// TestSwappedCertificates: one slot's file in the place of another's.
func TestSwappedCertificates(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	certified(t, r)
	path := func(name string) string {
		info := r.create(name)
		return filepath.Join(cfg.Dir, "slots", hex.EncodeToString(info.ID[:]), "certificates")
	}
	a, b := path("a"), path("b")
	must(t, os.Remove(b))
	if got, err := r.certificate("b", fakeHandle); err != nil || len(got.DER) != 0 {
		t.Errorf("without a file: %+v, %v", got, err)
	}
	must(t, os.Rename(a, b))
	if got, err := r.certificate("b", fakeHandle); statusOf(err) != abi.StatusCorrupt {
		t.Errorf("with another slot's: %+v, %v", got, err)
	}
}

// TestHostileMaker: a worker can have no key certified that is not the TPM's that
// it makes, and a slot's only by its Name in the table.
func TestHostileMaker(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	certified(t, r)
	r.create("a")
	s, err := r.named("a")
	must(t, err)
	mine, _ := fakeEK(s.rec.ID)
	foreign, _ := fakeEK([16]byte{0xee})
	ask := func(i *issuing, has ...abi.EKCertificate) []abi.EKCertificate {
		t.Helper()
		i.card, i.vm, i.chain = r.Card, "a", r.chain
		list, _, err := i.certify(&wire.Certify{}, has, nil)
		must(t, err)
		return list
	}
	i := &issuing{}
	if list := ask(i, abi.EKCertificate{Handle: fakeHandle, Public: foreign}); len(list[0].DER) == 0 || i.agree(s.rec.EKs) == nil {
		t.Errorf("a key that was not made: %+v", list)
	}
	if _, _, err := i.certify(&wire.Certify{}, nil, nil); err == nil {
		t.Error("a worker asks twice")
	}
	if list := ask(&issuing{}, abi.EKCertificate{Handle: fakeHandle, Public: []byte("garbage")}); len(list[0].DER) != 0 {
		t.Errorf("garbage is certified: %+v", list)
	}
	guests := []abi.EKCertificate{{Handle: fakeHandle, Public: foreign}, {Handle: 0x81010016, Public: foreign}}
	if list := ask(&issuing{slot: s}, guests...); len(list) != 1 || len(list[0].DER) != 0 {
		t.Errorf("a guest's key is certified: %+v", list)
	}
	known := []abi.EKCertificate{{Handle: fakeHandle, Public: mine}}
	if list := ask(&issuing{slot: s, known: known}, guests...); len(list) != 1 || !bytes.Equal(list[0].Public, mine) || len(list[0].DER) == 0 {
		t.Errorf("the slot's own key is not certified: %+v", list)
	}
}

// TestForeignContents: what somebody else has put into the indices stays there.
func TestForeignContents(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	a := certified(t, r)
	info := r.create("a")
	public, _ := fakeEK(info.ID)
	own, err := r.certificate("a", fakeHandle)
	must(t, err)
	for name, tc := range map[string]struct {
		der, chain []byte
		keep       bool
		index      uint32
		writes     bool
	}{
		"nothing":        {nil, nil, false, abi.IndexRSAEK, true},
		"ours":           {own.DER, r.chain.der, false, abi.IndexRSAEK, true},
		"a maker's":      {a.Host.Raw, nil, false, 0, false},
		"unreadable":     {provision.Unreadable, provision.Unreadable, false, 0, false},
		"foreign chain":  {nil, a.Host.Raw, false, abi.IndexRSAEK, false},
		"long chain":     {nil, make([]byte, 100000), false, abi.IndexRSAEK, false},
		"imported":       {nil, nil, true, 0, false},
		"imported, ours": {own.DER, r.chain.der, true, 0, false},
	} {
		i := &issuing{card: r.Card, vm: "a", chain: r.chain, keepNV: tc.keep}
		e := abi.EKCertificate{Handle: fakeHandle, Public: public, DER: tc.der}
		if tc.der != nil {
			e.Index = abi.IndexRSAEK
		}
		list, chain, err := i.certify(&wire.Certify{}, []abi.EKCertificate{e}, tc.chain)
		if err != nil || len(list) != 1 || len(list[0].DER) == 0 || list[0].Index != tc.index || (len(chain) > 0) != tc.writes {
			t.Errorf("%s: %+v, chain of %d bytes, %v", name, list, len(chain), err)
		}
	}
}
