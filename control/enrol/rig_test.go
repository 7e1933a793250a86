// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/store"
	"hwvtpm/control/store/bolt"
)

func TestMain(m *testing.M) { os.Exit(controltest.Main(m)) }

var model = ca.Model{Manufacturer: "id:00001014", Model: "test", Version: "id:00000001", Family: "2.0", Revision: 164}

// rig is a service with a clock of its own, and a maker of TPMs.
type rig struct {
	t     *testing.T
	dir   string
	now   time.Time
	cfg   Config
	s     *Service
	maker *ca.Issuer
	who   Caller
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), now: time.Now(), who: Caller{Addr: "test"}}
	cfg, err := DefaultConfig(), error(nil)
	cfg.Now = func() time.Time { return r.now }
	if cfg.Authority, err = ca.Create(r.dir, "test", ca.FileKeys{Dir: r.dir}, r.now); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(r.dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	cfg.Store = db
	if cfg.Journal, err = audit.OpenJournal(t.Context(), filepath.Join(r.dir, "audit"), db, cfg.Now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cfg.Journal.Close() })
	// Another authority's root is as good a manufacturer as any.
	made, err := ca.Create(t.TempDir(), "maker", ca.FileKeys{Dir: t.TempDir()}, r.now)
	if err != nil {
		t.Fatal(err)
	}
	r.maker = made.Root
	cfg.Manufacturers = &Manufacturers{roots: x509.NewCertPool()}
	cfg.Manufacturers.add(r.maker.Certificate)
	r.cfg, r.s = cfg, New(cfg)
	return r
}

func (r *rig) update(f func(store.Tx) error) {
	r.t.Helper()
	if err := r.cfg.Store.Update(r.t.Context(), f); err != nil {
		r.t.Fatal(err)
	}
}

// token makes one for a name.
func (r *rig) token(kind, name string, reuse bool) string {
	r.t.Helper()
	text := rand.Text()
	r.update(func(tx store.Tx) error {
		return store.Tokens.Put(tx, TokenHash(text), store.Token{
			Hash: TokenHash(text), Kind: kind, Name: name, Reuse: reuse, Expires: r.now.Add(time.Hour)})
	})
	return text
}

// ekCert is a manufacturer's certificate for an EK.
func (r *rig) ekCert(ek *controltest.Key) []byte {
	r.t.Helper()
	return r.issue(r.maker, ek.Crypto)(ca.VTPMEK("serial", model, ek.Crypto, ca.Validity{Now: r.now, Life: 1000 * time.Hour})).Raw
}

func (r *rig) issue(i *ca.Issuer, key crypto.PublicKey) func(*x509.Certificate, error) *x509.Certificate {
	return func(template *x509.Certificate, err error) *x509.Certificate {
		r.t.Helper()
		if err == nil {
			template, err = i.Issue(template, key)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		return template
	}
}

// enrol goes all the way.
func (r *rig) enrol(req *Request, who Caller, tpm *controltest.TPM, ek, ak *controltest.Key) (*Result, error) {
	c, err := r.s.Begin(r.t.Context(), req, who)
	if err != nil {
		return nil, err
	}
	secret, err := tpm.Activate(ek, ak, c.Blob, c.Secret)
	if err != nil {
		r.t.Fatalf("ActivateCredential: %v", err)
	}
	return r.s.Finish(r.t.Context(), c.ID, secret, who)
}

// want fails unless err is of a kind.
func (r *rig) want(what string, err, kind error) {
	r.t.Helper()
	if !errors.Is(err, kind) {
		r.t.Errorf("%s: %v, want %v", what, err, kind)
	} else {
		r.t.Logf("%s: %v", what, err)
	}
}

// host is a host with its keys in a TPM of libtpms.
type host struct {
	tpm    *controltest.TPM
	ek, ak *controltest.Key
	aik    *x509.Certificate
}

func (h *host) request(r *rig, name string) *Request {
	return &Request{Kind: store.KindHost, Name: name, EKCertificate: r.ekCert(h.ek), AKPublic: h.ak.TPM2B()}
}

// newHost starts a TPM and enrols it.
func (r *rig) newHost(name string) *host {
	r.t.Helper()
	h := &host{tpm: controltest.StartSim(r.t)}
	h.ek, h.ak = h.tpm.EK(tpm2.ECCEKTemplate), h.tpm.AK(nil)
	result, err := r.enrol(h.request(r, name), Caller{Token: r.token(store.KindHost, name, false)}, h.tpm, h.ek, h.ak)
	if err != nil {
		r.t.Fatal(err)
	}
	h.aik = result.Certificate
	return h
}

// machine is a vTPM with an EK certificate that its card issued.
type machine struct {
	tpm    *controltest.TPM
	ek, ak *controltest.Key
	card   *ca.Issuer
	cert   *x509.Certificate
	chain  [][]byte
}

// newMachine has the host's TPM issue a card's certificate, and the card that of a
// new TPM's EK.
func (r *rig) newMachine(h *host, vm string) *machine {
	r.t.Helper()
	v := ca.Validity{Now: r.now, Life: 100 * time.Hour}
	cardKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	serial := hex.EncodeToString(big.NewInt(r.now.UnixNano()).Bytes())
	card := r.issue(&ca.Issuer{Certificate: h.aik, Signer: h.tpm.Signer(h.ak)}, cardKey.Public())(ca.CoprocessorAIK(serial, v))
	m := &machine{tpm: controltest.StartSim(r.t), card: &ca.Issuer{Certificate: card, Signer: cardKey}}
	m.ek, m.ak = m.tpm.EK(tpm2.ECCEKTemplate), m.tpm.AK(nil)
	m.cert = r.issue(m.card, m.ek.Crypto)(ca.VTPMEK(vm, model, m.ek.Crypto, v))
	m.chain = [][]byte{card.Raw, h.aik.Raw}
	return m
}

// inAnotherName is the same TPM, of which the card says that it is another machine's.
func (r *rig) inAnotherName(m *machine, vm string) *machine {
	other := *m
	other.cert = r.issue(m.card, m.ek.Crypto)(ca.VTPMEK(vm, model, m.ek.Crypto, ca.Validity{Now: r.now, Life: 100 * time.Hour}))
	return &other
}

func (m *machine) request(vm string) *Request {
	return &Request{Kind: store.KindVTPM, Name: vm, EKCertificate: m.cert.Raw, EKChain: m.chain, AKPublic: m.ak.TPMT()}
}
