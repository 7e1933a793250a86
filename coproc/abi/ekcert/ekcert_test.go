// SPDX-License-Identifier: Apache-2.0

package ekcert_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net/url"
	"testing"
	"time"

	"hwvtpm/coproc/abi/ekcert"
	"hwvtpm/coproc/abi/ekcert/ekcerttest"
)

var (
	now   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	week  = ekcert.Validity{now, 7 * 24 * time.Hour}
	model = ekcert.Model{Manufacturer: "id:49424D00", Model: "hwvtpm", Version: "id:20191023", Family: "2.0", Level: 0, Revision: 164}
)

var directoryAttributes = asn1.ObjectIdentifier{2, 5, 29, 9} // RFC 5280, 4.2.1.8

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ek is the certificate of an endorsement key by a card.
func ek(t *testing.T, vm string, pub crypto.PublicKey) (ek, card *x509.Certificate) {
	t.Helper()
	key := newKey(t)
	top, err := ekcert.CoprocessorAIK("0a0b", week)
	if err != nil {
		t.Fatal(err)
	}
	card = ekcerttest.Issue(t, top, top, key.Public(), key)
	template, err := ekcert.VTPMEK(vm, model, pub, week)
	if err != nil {
		t.Fatal(err)
	}
	template.NotAfter = ekcert.Forever
	return ekcerttest.Issue(t, template, card, pub, key), card
}

func TestProfiles(t *testing.T) {
	cert, card := ek(t, "vm-1", newKey(t).Public())
	if vm, err := ekcert.IsVTPMEK(cert); vm != "vm-1" || err != nil {
		t.Errorf("IsVTPMEK = %q, %v", vm, err)
	}
	if serial, err := ekcert.IsCoprocessorAIK(card); serial != "0a0b" || err != nil {
		t.Errorf("IsCoprocessorAIK = %q, %v", serial, err)
	}
	if _, err := ekcert.IsCoprocessorAIK(cert); !errors.Is(err, ekcert.ErrProfile) {
		t.Errorf("an endorsement key is a card: %v", err)
	}
	if _, err := ekcert.IsVTPMEK(card); !errors.Is(err, ekcert.ErrProfile) {
		t.Errorf("a card is an endorsement key: %v", err)
	}
	if err := cert.CheckSignatureFrom(card); err != nil {
		t.Error(err)
	}
	if !cert.NotAfter.Equal(ekcert.Forever) || !ekcert.Forever.Equal(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)) {
		t.Errorf("it ends %v", cert.NotAfter)
	}
}

// TestSubject: a certificate has one name, of the kind that is asked for.
func TestSubject(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, uris := range map[string][]*url.URL{
		"none":         nil,
		"other kind":   {uri("urn:hwvtpm:host:a")},
		"two":          {uri("urn:hwvtpm:vm:a"), uri("urn:hwvtpm:vm:b")},
		"with another": {uri("urn:hwvtpm:vm:a"), uri("https://example.org")},
		"empty":        {uri("urn:hwvtpm:vm:")},
		"bad name":     {uri("urn:hwvtpm:vm:-a")},
	} {
		if vm, err := ekcert.Subject(&x509.Certificate{URIs: uris}, ekcert.KindVM); !errors.Is(err, ekcert.ErrProfile) {
			t.Errorf("%s: %q, %v, want ekcert.ErrProfile", name, vm, err)
		}
	}
	if _, err := ekcert.VTPMEK("a b", model, newKey(t).Public(), week); !errors.Is(err, ekcert.ErrName) {
		t.Errorf("a machine called %q: %v, want ekcert.ErrName", "a b", err)
	}
	if _, err := ekcert.VTPMEK("a", model, ed25519.PublicKey{}, week); err == nil {
		t.Error("an endorsement key for Ed25519")
	}
}

// The TCG's EK credential profile, 3.2: names of the TPM in a critical SAN, its
// specification in the subject directory attributes.
func TestEKProfile(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := ek(t, "vm-1", rsaKey.Public())
	if cert.KeyUsage != x509.KeyUsageKeyEncipherment {
		t.Errorf("RSA key usage %#x", cert.KeyUsage)
	}
	if ec, _ := ek(t, "vm-1", newKey(t).Public()); ec.KeyUsage != x509.KeyUsageKeyAgreement {
		t.Errorf("ECC key usage %#x", ec.KeyUsage)
	}
	var san, attributes []byte
	for _, e := range cert.Extensions {
		switch {
		case e.Id.Equal(ekcert.OIDSubjectAltName):
			san = e.Value
			if !e.Critical {
				t.Error("the SAN is not critical")
			}
		case e.Id.Equal(directoryAttributes):
			attributes = e.Value
		}
	}
	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(san, &names); err != nil || len(names) != 2 || names[0].Tag != 4 {
		t.Fatalf("SAN %x: %v", san, err)
	}
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(names[0].Bytes, &rdns); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, set := range rdns {
		got[set[0].Type.String()] = set[0].Value.(string)
	}
	if got["2.23.133.2.1"] != model.Manufacturer || got["2.23.133.2.2"] != model.Model || got["2.23.133.2.3"] != model.Version {
		t.Errorf("TPM names %v", got)
	}
	// As swtpm_setup encodes "2.0", level 0, revision 164.
	const want = "\x30\x19\x30\x17\x06\x05\x67\x81\x05\x02\x10\x31\x0e\x30\x0c\x0c\x03\x32\x2e\x30\x02\x01\x00\x02\x02\x00\xa4"
	if string(attributes) != want {
		t.Errorf("attributes %x, want %x", attributes, want)
	}
}
