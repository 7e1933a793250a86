// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/go-eventlog/testdata"
	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/ekcert"
)

var (
	now   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	month = ca.Validity{Now: now, Life: 30 * 24 * time.Hour}
	nonce = []byte("a nonce of the verifier, 32 long")
	model = ca.Model{Manufacturer: "id:48575654", Model: "hwvtpm", Version: "id:00000001", Family: "2.0", Revision: 164}

	// bootLogBytes is the log of a real machine with Secure Boot on.
	bootLogBytes = testdata.Rhel8EventLog
)

// site is an authority with one host, its TPM and its card.
type site struct {
	t         testing.TB
	authority *ca.Authority
	host      *tpm
	hostAIK   *key
	hostCert  *x509.Certificate
	card      *ecdsa.PrivateKey
	cardCert  *x509.Certificate
	cardQuote Quote
}

// newAuthority makes a root and its intermediates.
func newAuthority(t testing.TB) *ca.Authority {
	dir := t.TempDir()
	return ok[*ca.Authority](t)(ca.Create(dir, "test", ca.FileKeys{Dir: dir}, now.Add(-time.Hour)))
}

// newSite boots a host that is called name, and enrols it and its card.
func newSite(t testing.TB, a *ca.Authority, name string) *site {
	t.Helper()
	cert, key := ok[*x509.Certificate](t), ok[*ecdsa.PrivateKey](t)
	s := &site{t: t, authority: a, host: newTPM(t, nil)}
	s.host.boot(bootLogBytes)
	s.hostAIK = s.host.aik()
	s.hostCert = cert(a.Attestation.Issue(cert(ca.HostAIK(name, month)), s.hostAIK.pub))
	s.card = key(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	s.cardCert = s.certifyCard(s.card)
	data := CardData(s.cardCert.RawSubjectPublicKeyInfo)
	s.cardQuote = s.hostAIK.quote(data[:], firmware)
	return s
}

// certifyCard has the host's TPM sign the certificate of a card.
func (s *site) certifyCard(card *ecdsa.PrivateKey) *x509.Certificate {
	s.t.Helper()
	cert := ok[*x509.Certificate](s.t)
	serial := abi.SerialOf(spki(s.t, card.Public()))
	issuer := &ca.Issuer{Certificate: s.hostCert, Signer: s.hostAIK}
	return cert(issuer.Issue(cert(ca.CoprocessorAIK(hex.EncodeToString(serial[:]), month)), card.Public()))
}

// sign signs a statement with the card's key.
func (s *site) sign(kind abi.StatementType, nonce [32]byte, body []byte) []byte {
	s.t.Helper()
	serial := abi.SerialOf(s.cardCert.RawSubjectPublicKeyInfo)
	st := abi.AppendStatement(nil, &abi.Statement{Type: kind, Time: now.Unix(), Serial: serial, Slot: [16]byte{7}, Nonce: nonce, Body: body})
	digest := sha256.Sum256(st)
	return abi.AppendSignature(st, ok[[]byte](s.t)(ecdsa.SignASN1(rand.Reader, s.card, digest[:])))
}

// machine is a virtual machine of a site.
type machine struct {
	*site
	name    string
	tpm     *tpm
	ek      *key
	ekCert  *x509.Certificate
	aik     *key
	aikCert *x509.Certificate
}

// newMachine starts a machine with a new vTPM that shows the host's PCRs.
func (s *site) newMachine(name string) *machine {
	s.t.Helper()
	m := &machine{site: s, name: name, tpm: newTPM(s.t, s.host.pcrMap())}
	m.ek = m.tpm.primary(tpm2.ECCEKTemplate)
	m.ekCert = m.certifyEK(m.ek.pub)
	m.aik = m.tpm.aik()
	m.aikCert = m.certifyAIK(s.authority.Attestation, m.aik.pub, m.ekCert)
	return m
}

// certifyEK has the card certify an EK as its firmware does: without an end, so that it
// outlasts all certificates above it.
func (m *machine) certifyEK(pub crypto.PublicKey) *x509.Certificate {
	m.t.Helper()
	t := ok[*x509.Certificate](m.t)(ca.VTPMEK(m.name, model, pub, month))
	t.NotAfter = ekcert.Forever
	der := ok[[]byte](m.t)(x509.CreateCertificate(rand.Reader, t, m.cardCert, pub, m.card))
	return ok[*x509.Certificate](m.t)(x509.ParseCertificate(der))
}

// certifyAIK certifies an AIK, for the test's cause by whatever issuer.
func (m *machine) certifyAIK(issuer *ca.Issuer, pub crypto.PublicKey, ek *x509.Certificate) *x509.Certificate {
	m.t.Helper()
	cert := ok[*x509.Certificate](m.t)
	template := cert(ca.VTPMAIK(m.name, month))
	digest := ca.EKDigest(ek)
	if err := ca.BesideEK(template, hex.EncodeToString(digest[:])); err != nil {
		m.t.Fatal(err)
	}
	return cert(issuer.Issue(template, pub))
}

// answer gives the whole evidence to a nonce.
func (m *machine) answer(nonce []byte) *Evidence { return m.answerOver(nonce, firmware, firmware) }

// answerOver quotes certain PCRs of the machine and of the host.
func (m *machine) answerOver(nonce []byte, vm, host map[string][]uint) *Evidence {
	m.t.Helper()
	ev := &Evidence{Version: Version, PCRMap: ModeMap}
	ev.VM.Layer = m.aik.layer(nonce, vm)
	fresh := HostNonce(nonce, ev.VM.Quote.Attest)
	layer := m.hostAIK.layer(fresh[:], host)
	layer.Log = bootLogBytes
	ev.Host = &layer
	ev.VM.Chain = string(ca.PEM(m.aikCert, m.authority.Attestation.Certificate))
	ev.Binding = Binding{
		Chain:     string(ca.PEM(m.ekCert, m.cardCert, m.hostCert, m.authority.Attestation.Certificate)),
		EKPublic:  m.ek.public,
		Statement: m.ekStatement(m.ek.handle.Name.Buffer),
		CardQuote: m.cardQuote,
		Health:    m.sign(abi.StatementHealth, fresh, abi.AppendCardHealth(nil, &abi.CardHealth{Firmware: [32]byte{1}})),
	}
	return ev
}

func (m *machine) ekStatement(name []byte) []byte {
	return m.sign(abi.StatementEK, [32]byte{}, abi.AppendEKBody(nil, &abi.EKBody{Generation: 3, EKs: []abi.EK{{Handle: 0x8101000a, Name: name}}}))
}

// verifier trusts the site's root.
func (s *site) verifier() *Verifier { return &Verifier{Roots: s.authority.Roots(), Now: now} }

// lists makes revocation lists of the root and of the attestation authority, the
// second with these certificates.
func (s *site) lists(revoked ...*x509.Certificate) []*x509.RevocationList {
	s.t.Helper()
	return []*x509.RevocationList{list(s.t, s.authority.Root), list(s.t, s.authority.Attestation, revoked...)}
}

// rootList is lists with these certificates in the first.
func (s *site) rootList(revoked ...*x509.Certificate) []*x509.RevocationList {
	s.t.Helper()
	return []*x509.RevocationList{list(s.t, s.authority.Root, revoked...), list(s.t, s.authority.Attestation)}
}

// list makes an issuer's list of a day.
func list(t testing.TB, issuer *ca.Issuer, revoked ...*x509.Certificate) *x509.RevocationList {
	t.Helper()
	var entries []ca.Revoked
	for _, c := range revoked {
		entries = append(entries, ca.Revoked{Serial: c.SerialNumber, Time: now, Reason: ca.ReasonKeyCompromise})
	}
	day := ca.Validity{Now: now.Add(-time.Hour), Life: 24 * time.Hour}
	return ok[*x509.RevocationList](t)(x509.ParseRevocationList(ok[[]byte](t)(issuer.RevocationList(1, entries, day))))
}

// through sends evidence the way it goes: as text.
func through(t testing.TB, ev *Evidence) *Evidence {
	t.Helper()
	return ok[*Evidence](t)(Parse(ok[[]byte](t)(ev.Marshal())))
}
