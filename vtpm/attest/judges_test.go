// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/coproc/abi/ekcert/ekcerttest"
)

// judges is a folder for stock tools.
type judges struct {
	t   *testing.T
	dir string
}

func newJudges(t *testing.T) *judges {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs openssl, tpm2-tools and python3: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	return &judges{t, t.TempDir()}
}

func (j *judges) write(name string, data []byte) string {
	j.t.Helper()
	path := filepath.Join(j.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		j.t.Fatal(err)
	}
	return path
}

// run runs a tool, which must come to a verdict.
func (j *judges) run(good bool, name string, args ...string) string {
	j.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if (err == nil) != good {
		j.t.Errorf("%s %v: %v, want success: %v\n%s", name, args, err, good, out)
	}
	return string(out)
}

// openssl builds both chains, the machine's by its strict rules and with revocation
// lists, and finds a revoked machine.
func TestOpensslBuildsChains(t *testing.T) {
	j := newJudges(t)
	m := newSite(t, newAuthority(t), "host-1").newMachine("vm-1")
	ev := m.answer(nonce)
	lists := func(revoked ...*x509.Certificate) string {
		var text []byte
		for _, l := range m.lists(revoked...) {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: l.Raw})...)
		}
		return j.write("lists", text)
	}
	root := j.write("root.pem", ca.PEM(m.authority.Root.Certificate))
	vm, binding := j.write("vm.pem", []byte(ev.VM.Chain)), j.write("binding.pem", []byte(ev.Binding.Chain))
	at := []string{"verify", "-attime", "1793534400", "-CAfile", root}
	strict := append(at, "-x509_strict", "-untrusted", vm)
	j.run(true, "openssl", append(strict, vm)...)
	j.run(true, "openssl", append(strict, "-crl_check_all", "-CRLfile", lists(), vm)...)
	j.run(false, "openssl", append(strict, "-crl_check_all", "-CRLfile", lists(m.aikCert), vm)...)
	j.run(true, "openssl", append(at, "-ignore_critical", "-untrusted", binding, binding)...)
	for n, link := range ok[[]*x509.Certificate](t)(ca.ParsePEM([]byte(ev.Binding.Chain)))[1:] {
		path := j.write("link.pem", ca.PEM(link))
		j.run(true, "openssl", append(at, "-x509_strict", "-untrusted", binding, path)...)
		t.Logf("link %d of the binding: %s", n+1, link.Subject)
	}
	other := j.write("other.pem", ca.PEM(newAuthority(t).Root.Certificate))
	j.run(false, "openssl", "verify", "-attime", "1793534400", "-CAfile", other, "-ignore_critical", "-untrusted", binding, binding)
}

// By keylime's rules an EK certificate of ours is one of a TPM whose maker is the
// coprocessor: it is read by the library's own parser, and its issuer is in the store.
func TestKeylimeRules(t *testing.T) {
	newJudges(t)
	s := newSite(t, newAuthority(t), "host-1")
	m, stranger := s.newMachine("vm-1"), newSite(t, newAuthority(t), "host-1")
	type store map[string]*x509.Certificate
	trusted := store{"card": s.cardCert, "host": s.hostCert, "attestation": s.authority.Attestation.Certificate, "root": s.authority.Root.Certificate}
	refused := func(why string, cert []byte, in store) {
		t.Helper()
		if by, err := ekcerttest.Keylime(t, cert, in); err == nil {
			t.Errorf("%s: vouched for by %s", why, by)
		}
	}
	for name, template := range map[string]tpm2.TPMTPublic{"rsa-2048": tpm2.RSAEKTemplate, "p-256": tpm2.ECCEKTemplate} {
		k := m.tpm.primary(template)
		cert := m.certifyEK(k.pub)
		if by, err := ekcerttest.Keylime(t, cert.Raw, trusted); by != "card" {
			t.Errorf("%s: vouched for by %q (%v), want card", name, by, err)
		}
		refused("another card", cert.Raw, store{"card": stranger.cardCert})
		refused("who is above the card", cert.Raw, store{"host": s.hostCert})
		refused("a byte more", append(bytes.Clone(cert.Raw), 0), trusted)
		bad := bytes.Clone(cert.Raw)
		bad[len(bad)-1] ^= 1
		refused("a bit of the signature", bad, trusted)
		if !bytes.Equal(lowRange(t, template, cert), k.public) {
			t.Errorf("%s: the EK is not the one that its certificate's key and the low range template give", name)
		}
		if _, err := (tpm2.FlushContext{FlushHandle: k.handle.Handle}).Execute(m.tpm); err != nil {
			t.Fatal(err)
		}
	}
}

// lowRange makes the public area that a registrar makes of an EK certificate, to
// which it then encrypts: TCG EK Credential Profile, templates L-1 and L-2.
func lowRange(t *testing.T, template tpm2.TPMTPublic, cert *x509.Certificate) []byte {
	t.Helper()
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.FillBytes(make([]byte, 256))})
	case *ecdsa.PublicKey:
		point := ok[[]byte](t)(key.Bytes())
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		})
	default:
		t.Fatalf("a key of type %T", key)
	}
	return tpm2.Marshal(template)
}
