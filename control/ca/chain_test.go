// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	now  = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	week = Validity{Now: now, Life: 7 * 24 * time.Hour}
)

var model = Model{Manufacturer: "id:00001014", Model: "hwvtpm", Version: "id:00000001", Family: "2.0", Level: 0, Revision: 164}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := t.TempDir()
	a, err := Create(dir, "test", FileKeys{dir}, now)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

// must gives v, and is for templates that can't fail.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// chain is all that hangs below the attestation issuer.
type chain struct {
	host, card, ek, aik      *x509.Certificate
	hostKey, cardKey, aikKey crypto.Signer
}

func newChain(t *testing.T, a *Authority, ekKey crypto.PublicKey) chain {
	t.Helper()
	tmpl, cert := must[*x509.Certificate](t), must[*x509.Certificate](t)
	c := chain{hostKey: newKey(t), cardKey: newKey(t), aikKey: newKey(t)}
	c.host = cert(a.Attestation.Issue(tmpl(HostAIK("host-1", week)), c.hostKey.Public()))
	host := &Issuer{Certificate: c.host, Signer: c.hostKey}
	c.card = cert(host.Issue(tmpl(CoprocessorAIK("0a0b0c", week)), c.cardKey.Public()))
	card := &Issuer{Certificate: c.card, Signer: c.cardKey}
	c.ek = cert(card.Issue(tmpl(VTPMEK("vm-1", model, ekKey, week)), ekKey))
	c.aik = cert(a.Attestation.Issue(tmpl(VTPMAIK("vm-1", week)), c.aikKey.Public()))
	return c
}

func (c chain) others(a *Authority) []*x509.Certificate {
	return []*x509.Certificate{c.host, c.card, a.Attestation.Certificate}
}

func TestChainVerifies(t *testing.T) {
	a, _ := newAuthority(t)
	c := newChain(t, a, newKey(t).Public())
	got, err := Verify(c.ek, c.others(a), a.Roots(), now)
	want := []*x509.Certificate{c.ek, c.card, c.host, a.Attestation.Certificate, a.Root.Certificate}
	if err != nil || !slices.EqualFunc(got, want, Same) {
		t.Fatalf("Verify(EK) = %d certificates, %v", len(got), err)
	}
	if vm, err := IsVTPMEK(c.ek); vm != "vm-1" || err != nil {
		t.Errorf("IsVTPMEK = %q, %v", vm, err)
	}
	if host, err := IsHostAIK(c.host); host != "host-1" || err != nil {
		t.Errorf("IsHostAIK = %q, %v", host, err)
	}
	if card, err := IsCoprocessorAIK(c.card); card != "0a0b0c" || err != nil {
		t.Errorf("IsCoprocessorAIK = %q, %v", card, err)
	}
	if vm, err := IsVTPMAIK(c.aik); vm != "vm-1" || err != nil {
		t.Errorf("IsVTPMAIK = %q, %v", vm, err)
	}
	if _, err := Verify(c.ek, c.others(a), a.Roots(), now.Add(8*24*time.Hour)); err == nil {
		t.Error("an ended chain verifies")
	}
	other, _ := newAuthority(t)
	if _, err := Verify(c.ek, c.others(a), other.Roots(), now); err == nil {
		t.Error("the chain verifies to a foreign root")
	}
}

// No certificate passes for one of another place in the chain.
func TestProfilesAreDistinct(t *testing.T) {
	a, _ := newAuthority(t)
	c := newChain(t, a, newKey(t).Public())
	tls := must[*x509.Certificate](t)(a.Service.Issue(must[*x509.Certificate](t)(TLSClient("host-1", week)), newKey(t).Public()))
	checks := map[string]func(*x509.Certificate) (string, error){
		"host": IsHostAIK, "card": IsCoprocessorAIK, "ek": IsVTPMEK, "aik": IsVTPMAIK, "tls": IsServiceClient,
	}
	for name, cert := range map[string]*x509.Certificate{
		"host": c.host, "card": c.card, "ek": c.ek, "aik": c.aik, "tls": tls,
		"root": a.Root.Certificate, "attestation": a.Attestation.Certificate, "service": a.Service.Certificate,
	} {
		for profile, check := range checks {
			if _, err := check(cert); (err == nil) != (name == profile) {
				t.Errorf("%s judged as %s: %v", name, profile, err)
			} else if err != nil && !errors.Is(err, ErrProfile) {
				t.Errorf("%s judged as %s: %v, want ErrProfile", name, profile, err)
			}
		}
	}
}

// A key of the chain can't issue what is above it, nor make the chain longer.
func TestLinksCannotReachUp(t *testing.T) {
	a, _ := newAuthority(t)
	c := newChain(t, a, newKey(t).Public())
	card := &Issuer{Certificate: c.card, Signer: c.cardKey}
	tmpl, cert := must[*x509.Certificate](t), must[*x509.Certificate](t)
	second := newKey(t)
	forged := cert(card.Issue(tmpl(CoprocessorAIK("ffff", week)), second.Public()))
	ekKey := newKey(t)
	ek := cert((&Issuer{Certificate: forged, Signer: second}).Issue(tmpl(VTPMEK("vm-2", model, ekKey.Public(), week)), ekKey.Public()))
	if _, err := Verify(ek, append(c.others(a), forged), a.Roots(), now); err == nil {
		t.Error("a card's key made another card")
	}
	// A leaf issues nothing.
	aik := cert((&Issuer{Certificate: c.aik, Signer: c.aikKey}).sign(tmpl(VTPMAIK("vm-2", week)), c.aik, newKey(t).Public()))
	if _, err := Verify(aik, append(c.others(a), c.aik), a.Roots(), now); err == nil {
		t.Error("a leaf issued a certificate")
	}
}

func TestIssueEndsWithIssuer(t *testing.T) {
	a, _ := newAuthority(t)
	c := newChain(t, a, newKey(t).Public())
	host := &Issuer{Certificate: c.host, Signer: c.hostKey}
	long := must[*x509.Certificate](t)(CoprocessorAIK("aa", Validity{Now: now, Life: 1000 * time.Hour}))
	cert, err := host.Issue(long, newKey(t).Public())
	if err != nil || !cert.NotAfter.Equal(c.host.NotAfter) {
		t.Errorf("Issue: %v, ends %v, want %v", err, cert.NotAfter, c.host.NotAfter)
	}
	late := must[*x509.Certificate](t)(CoprocessorAIK("aa", Validity{Now: now.Add(30 * 24 * time.Hour), Life: time.Hour}))
	if _, err := host.Issue(late, newKey(t).Public()); err == nil {
		t.Error("an ended issuer issues")
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "-a", ".a", "a b", "a/b", "a:b", "ä", strings.Repeat("a", 64), "a\x00"} {
		if _, err := HostAIK(name, week); !errors.Is(err, ErrName) {
			t.Errorf("HostAIK(%q): %v, want ErrName", name, err)
		}
	}
	for _, name := range []string{"a", "9", "a.b-c_d", "5f0c8c02-7a7d-4f0e-9a8e-0c5a4c1d2e3f", strings.Repeat("a", 63)} {
		if _, err := VTPMAIK(name, week); err != nil {
			t.Errorf("VTPMAIK(%q): %v", name, err)
		}
	}
}

func TestRevocationList(t *testing.T) {
	a, _ := newAuthority(t)
	c := newChain(t, a, newKey(t).Public())
	der, err := a.Attestation.RevocationList(7, []Revoked{{c.host.SerialNumber, now, ReasonKeyCompromise}}, Validity{Now: now, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	list := must[*x509.RevocationList](t)(x509.ParseRevocationList(der))
	if err := list.CheckSignatureFrom(a.Attestation.Certificate); err != nil {
		t.Error(err)
	}
	if list.Number.Int64() != 7 || !list.NextUpdate.Equal(now.Add(time.Hour)) || len(list.RevokedCertificateEntries) != 1 ||
		list.RevokedCertificateEntries[0].SerialNumber.Cmp(c.host.SerialNumber) != 0 || list.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("list %+v", list)
	}
}

// openssl, which shares no code with crypto/x509, judges alike.
func TestOpenSSLAgrees(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs openssl: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	a, dir := newAuthority(t)
	c := newChain(t, a, newKey(t).Public())
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	crl := func(i *Issuer, r ...Revoked) []byte {
		der := must[[]byte](t)(i.RevocationList(1, r, Validity{Now: now, Life: time.Hour}))
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	others := write("others", PEM(c.others(a)...))
	verify := func(cert *x509.Certificate, args ...string) error {
		all := slices.Concat([]string{"verify", "-attime", "1793534400", "-x509_strict", "-CAfile", certPath(dir, NameRoot), "-untrusted", others}, args,
			[]string{write("cert", PEM(cert))})
		out, err := exec.Command("openssl", all...).CombinedOutput()
		t.Logf("openssl %v: %s", all, out)
		return err
	}
	for _, cert := range []*x509.Certificate{c.ek, c.aik, c.card, c.host} {
		if err := verify(cert); err != nil {
			t.Errorf("openssl refuses %s: %v", cert.Subject, err)
		}
	}
	good := write("good", slices.Concat(crl(a.Root), crl(a.Attestation)))
	if err := verify(c.aik, "-crl_check_all", "-CRLfile", good); err != nil {
		t.Errorf("openssl refuses a certificate that is not revoked: %v", err)
	}
	bad := write("bad", slices.Concat(crl(a.Root), crl(a.Attestation, Revoked{c.aik.SerialNumber, now, ReasonSuperseded})))
	if err := verify(c.aik, "-crl_check_all", "-CRLfile", bad); err == nil {
		t.Error("openssl accepts a revoked certificate")
	}
}

func TestLoad(t *testing.T) {
	a, dir := newAuthority(t)
	if _, err := Create(dir, "test", FileKeys{dir}, now); !errors.Is(err, ErrExists) {
		t.Errorf("Create again: %v, want ErrExists", err)
	}
	b, err := Load(dir, FileKeys{dir}, now)
	if err != nil || !Same(a.Root.Certificate, b.Root.Certificate) || b.Root.Signer == nil {
		t.Fatalf("Load: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, "root.key"), filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if b, err = Load(dir, FileKeys{dir}, now); err != nil {
		t.Fatalf("Load without the root's key: %v", err)
	}
	if _, err := b.Issuer(NameRoot); !errors.Is(err, ErrNoRootKey) {
		t.Errorf("Issuer(root): %v, want ErrNoRootKey", err)
	}
	service := filepath.Join(dir, "service.key")
	if err := os.Chmod(service, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, FileKeys{dir}, now); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("Load with a key that others may read: %v", err)
	}
	os.Remove(service)
	if _, err := Load(dir, FileKeys{dir}, now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load without a key: %v", err)
	}
	if _, err := (FileKeys{dir}).Create(NameService); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, FileKeys{dir}, now); err == nil {
		t.Error("Load takes a foreign key")
	}
}

func TestServerCertificate(t *testing.T) {
	a, _ := newAuthority(t)
	c, err := a.ServerCertificate([]string{"control.example", "192.0.2.1"}, week)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"control.example", "192.0.2.1"} {
		pool := x509.NewCertPool()
		pool.AddCert(a.Service.Certificate)
		if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: a.Roots(), Intermediates: pool, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVerifyRefusesLargeKeys: before any signature is checked, since one check by such a
// key takes minutes.
func TestVerifyRefusesLargeKeys(t *testing.T) {
	a, _ := newAuthority(t)
	key, cert := newKey(t), must[*x509.Certificate](t)
	large := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 40<<13, 1), E: 1<<31 - 1}
	issue := func(template *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
		return cert((&Issuer{Certificate: a.Attestation.Certificate, Signer: a.Attestation.Signer}).Issue(template, key))
	}
	good := issue(cert(HostAIK("host-1", week)), key.Public())
	bad := issue(cert(HostAIK("host-1", week)), large)
	for what, certs := range map[string][]*x509.Certificate{
		"an issuer": {good, bad, a.Attestation.Certificate}, "the certificate itself": {bad, a.Attestation.Certificate},
	} {
		if _, err := Verify(certs[0], certs[1:], a.Roots(), now); !errors.Is(err, ErrProfile) {
			t.Errorf("%s has a key of %d bits: %v, want ErrProfile", what, large.N.BitLen(), err)
		}
	}
	if _, err := Verify(good, []*x509.Certificate{a.Attestation.Certificate}, a.Roots(), now); err != nil {
		t.Error(err)
	}
}
