// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"hwvtpm/control/ca"
)

// TestRootWithoutKeyUsage: a root of somebody else's making may leave its key usage out,
// or name one without lists. What it issued has to be covered by a list all the same.
func TestRootWithoutKeyUsage(t *testing.T) {
	for _, usage := range []x509.KeyUsage{0, x509.KeyUsageCertSign, x509.KeyUsageCertSign | x509.KeyUsageCRLSign} {
		cert := ok[*x509.Certificate](t)
		parse := func(der []byte, err error) *x509.Certificate {
			return cert(x509.ParseCertificate(ok[[]byte](t)(der, err)))
		}
		rootKey, key := softKey(t), softKey(t)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, BasicConstraintsValid: true, IsCA: true,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: usage, SubjectKeyId: []byte{1},
		}
		root := parse(x509.CreateCertificate(rand.Reader, template, template, rootKey.Public(), rootKey))
		below := parse(x509.CreateCertificate(rand.Reader, newAuthority(t).Attestation.Certificate, root, key.Public(), rootKey))
		aik := cert((&ca.Issuer{Certificate: below, Signer: key}).Issue(cert(ca.VTPMAIK("vm-1", month)), softKey(t).Public()))

		listing := *root // as crypto/x509 wants it to make a list
		listing.KeyUsage = x509.KeyUsageCRLSign
		above, own := &ca.Issuer{Certificate: &listing, Signer: rootKey}, list(t, &ca.Issuer{Certificate: below, Signer: key})
		for name, c := range map[string]struct {
			lists []*x509.RevocationList
			good  bool
		}{
			"not revoked":       {[]*x509.RevocationList{list(t, above), own}, usage != x509.KeyUsageCertSign}, // that is to issue none
			"authority revoked": {[]*x509.RevocationList{list(t, above, below), own}, false},
			"no list of a root": {[]*x509.RevocationList{own}, false},
		} {
			v := &Verifier{Now: now, Lists: c.lists}
			if err := v.revoked(chain{aik, below, root}); (err == nil) != c.good {
				t.Errorf("root with key usage %#x, %s: %v", int(usage), name, err)
			}
		}
	}
}
