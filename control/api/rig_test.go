// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/enrol"
	"hwvtpm/control/operator"
	"hwvtpm/control/revoke"
	"hwvtpm/control/store"
	"hwvtpm/control/store/bolt"
)

func TestMain(m *testing.M) { os.Exit(controltest.Main(m)) }

var model = ca.Model{Manufacturer: "id:00001014", Model: "test", Version: "id:00000001", Family: "2.0", Revision: 164}

// rig is a server that listens, and a maker of TPMs that it trusts.
type rig struct {
	t      *testing.T
	dir    string // of the authority
	cfg    Config
	maker  *ca.Issuer
	url    string
	mu     sync.Mutex // guards clock
	clock  time.Time
	public *Server
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock = r.clock.Add(d)
}

// fatal ends the test if err is not nil.
func (r *rig) fatal(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func newRig(t *testing.T, burst float64) *rig {
	t.Helper()
	r := &rig{t: t, clock: time.Now()}
	dir, maker := t.TempDir(), t.TempDir()
	r.dir = dir
	authority, err := ca.Create(dir, "test", ca.FileKeys{Dir: dir}, r.now())
	r.fatal(err)
	made, err := ca.Create(maker, "maker", ca.FileKeys{Dir: t.TempDir()}, r.now())
	r.fatal(err)
	r.maker = made.Root
	trusted, err := enrol.LoadManufacturers(maker)
	r.fatal(err)
	db, err := bolt.Open(filepath.Join(dir, "db"))
	r.fatal(err)
	t.Cleanup(func() { db.Close() })
	journal, err := audit.OpenJournal(t.Context(), filepath.Join(dir, "audit"), db, r.now)
	r.fatal(err)
	t.Cleanup(func() { journal.Close() })
	e := enrol.DefaultConfig()
	e.Authority, e.Store, e.Journal, e.Manufacturers, e.Now = authority, db, journal, trusted, r.now
	r.cfg = Config{
		Authority: authority, Store: db, Enrol: enrol.New(e), Now: r.now, Burst: burst, Rate: 1,
		Operator: &operator.Operator{Store: db, Journal: journal, Now: r.now},
		Lists:    &revoke.Publisher{Authority: authority, Store: db, Life: time.Hour, RootLife: time.Hour},
	}
	r.cfg.Verify = DefaultVerify()
	r.public = New(r.cfg)
	r.listen()
	return r
}

func (r *rig) listen() {
	certificate, err := r.cfg.Authority.ServerCertificate([]string{"127.0.0.1"}, ca.Validity{Now: r.now(), Life: time.Hour})
	r.fatal(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.fatal(err)
	r.url = "https://" + l.Addr().String()
	ctx, done := r.t.Context(), make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, TLS(func() (*tls.Certificate, error) { return certificate, nil }), r.public.Public())
	}()
	r.t.Cleanup(func() { // the test's context has ended
		if err := <-done; err != nil {
			r.t.Errorf("Serve: %v", err)
		}
	})
}

// client talks to the server with a TLS key and a token, if it has them.
type client struct {
	r     *rig
	http  *http.Client
	token string
}

func (r *rig) client(token string, certs ...tls.Certificate) *client {
	cfg := &tls.Config{RootCAs: r.cfg.Authority.Roots(), Certificates: certs}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &client{r: r, http: &http.Client{Transport: tr}, token: token}
}

// do sends a body, JSON unless it is bytes, and gives status and answer.
func (c *client) do(method, path string, body any) (int, []byte) {
	c.r.t.Helper()
	raw, isRaw := body.([]byte)
	if !isRaw && body != nil {
		var err error
		raw, err = json.Marshal(body)
		c.r.fatal(err)
	}
	req, err := http.NewRequestWithContext(c.r.t.Context(), method, c.r.url+path, bytes.NewReader(raw))
	c.r.fatal(err)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	c.r.fatal(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	c.r.fatal(err)
	return resp.StatusCode, text
}

// want sends a body and fails unless the status is as expected.
func (c *client) want(status int, method, path string, body any) []byte {
	c.r.t.Helper()
	got, text := c.do(method, path, body)
	if got != status {
		c.r.t.Errorf("%s %s: status %d, want %d: %s", method, path, got, status, text)
	}
	return text
}

// enrol goes all the way.
func (c *client) enrol(req *enrol.Request, tpm *controltest.TPM, ek, ak *controltest.Key) (got Certified) {
	c.r.t.Helper()
	var challenge enrol.Challenge
	c.r.fatal(json.Unmarshal(c.want(http.StatusCreated, "POST", "/v1/enrol", req), &challenge))
	secret, err := tpm.Activate(ek, ak, challenge.Blob, challenge.Secret)
	c.r.fatal(err)
	c.r.fatal(json.Unmarshal(c.want(http.StatusOK, "POST", "/v1/enrol/"+challenge.ID, Proof{secret}), &got))
	return got
}

func (r *rig) token(kind, name string) string {
	r.t.Helper()
	tok, err := r.cfg.Operator.NewToken(r.t.Context(), operator.TokenRequest{Kind: kind, Name: name, Life: time.Hour})
	r.fatal(err)
	return tok.Token
}

func (r *rig) issue(i *ca.Issuer, key any) func(*x509.Certificate, error) *x509.Certificate {
	return func(t *x509.Certificate, err error) *x509.Certificate {
		r.t.Helper()
		r.fatal(err)
		cert, err := i.Issue(t, key)
		r.fatal(err)
		return cert
	}
}

func (r *rig) key() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.fatal(err)
	return key
}

// host is an enrolled host with its TPM and TLS key.
type host struct {
	tpm    *controltest.TPM
	ek, ak *controltest.Key
	req    *enrol.Request
	aik    *x509.Certificate
	tls    tls.Certificate
}

func (r *rig) newHost(name string) *host {
	r.t.Helper()
	h := &host{tpm: controltest.StartSim(r.t)}
	h.ek, h.ak = h.tpm.EK(tpm2.ECCEKTemplate), h.tpm.AK(nil)
	key := r.key()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	r.fatal(err)
	v := ca.Validity{Now: r.now(), Life: 1000 * time.Hour}
	h.req = &enrol.Request{
		Kind: store.KindHost, Name: name, AKPublic: h.ak.TPM2B(), CSR: csr,
		EKCertificate: r.issue(r.maker, h.ek.Crypto)(ca.VTPMEK("serial", model, h.ek.Crypto, v)).Raw,
	}
	got := r.client(r.token(store.KindHost, name)).enrol(h.req, h.tpm, h.ek, h.ak)
	aik, err := ca.ParsePEM([]byte(got.Certificate))
	r.fatal(err)
	client, err := ca.ParsePEM([]byte(got.TLS))
	r.fatal(err)
	h.aik, h.tls = aik[0], tls.Certificate{Certificate: [][]byte{client[0].Raw}, PrivateKey: key, Leaf: client[0]}
	return h
}

// newMachine is a vTPM's request, its TPM, and keys.
func (r *rig) newMachine(h *host, vm string) (*enrol.Request, *controltest.TPM, *controltest.Key, *controltest.Key) {
	r.t.Helper()
	v, cardKey := ca.Validity{Now: r.now(), Life: 100 * time.Hour}, r.key()
	card := r.issue(&ca.Issuer{Certificate: h.aik, Signer: h.tpm.Signer(h.ak)}, cardKey.Public())(ca.CoprocessorAIK("0a0b", v))
	tpm := controltest.StartSim(r.t)
	ek, ak := tpm.EK(tpm2.ECCEKTemplate), tpm.AK(nil)
	cert := r.issue(&ca.Issuer{Certificate: card, Signer: cardKey}, ek.Crypto)(ca.VTPMEK(vm, model, ek.Crypto, v))
	return &enrol.Request{
		Kind: store.KindVTPM, Name: vm, AKPublic: ak.TPMT(), EKCertificate: cert.Raw, EKChain: [][]byte{card.Raw, h.aik.Raw},
	}, tpm, ek, ak
}
