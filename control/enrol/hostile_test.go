// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/store"
)

// changed is a store in which something was changed, seen by updates that fail in
// the end: the change never stays.
type changed struct {
	store.Store
	change func(store.Tx) error
	calls  int
}

func withStore(cfg Config, s store.Store) Config {
	cfg.Store = s
	return cfg
}

// Update takes the challenge as it is; what follows sees the change.
func (c *changed) Update(ctx context.Context, f func(store.Tx) error) error {
	c.calls++
	if c.calls == 1 {
		return c.Store.Update(ctx, f)
	}
	return c.Store.Update(ctx, func(tx store.Tx) error { return errors.Join(c.change(tx), f(tx)) })
}

// No key but a fit one gets as far as a challenge: these are real keys of a TPM.
func TestUnfitKeys(t *testing.T) {
	r := newRig(t)
	tpm := controltest.StartSim(t)
	ek := tpm.EK(tpm2.ECCEKTemplate)
	cert := r.ekCert(ek)
	who := Caller{Token: r.token(store.KindHost, "h", true)}
	for what, change := range map[string]func(p *tpm2.TPMTPublic){
		"not restricted":     func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false },
		"signs and decrypts": func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false; p.ObjectAttributes.Decrypt = true },
		"can be duplicated":  func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent = false, false },
		"parent can change":  func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false },
		"signs with SHA-1":   ecdsaHash(tpm2.TPMAlgSHA1),
		"name is SHA-1":      func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 },
		"storage key":        func(p *tpm2.TPMTPublic) { *p = tpm2.ECCSRKTemplate },
		"the EK":             func(p *tpm2.TPMTPublic) { *p = tpm2.ECCEKTemplate },
		"any scheme":         func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false; anyScheme(p) },
		"curve too small":    curve(tpm2.TPMECCNistP224),
	} {
		r.want(what, func() error {
			template := controltest.AKTemplate()
			change(&template)
			public := tpm2.Marshal(&template)
			// A TPM has no such key in some cases; the words of one must not do either.
			if rsp, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}).Execute(tpm); err == nil {
				public = rsp.OutPublic.Bytes()
				tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(tpm)
			} else {
				t.Logf("%s: the TPM itself refuses: %v", what, err)
			}
			_, err := r.s.Begin(t.Context(), &Request{Kind: store.KindHost, Name: "h", EKCertificate: cert, AKPublic: public}, who)
			return err
		}(), ErrRequest)
	}
}

func eccParms(scheme tpm2.TPMTECCScheme, curve tpm2.TPMECCCurve) tpm2.TPMUPublicParms {
	return tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Scheme: scheme, CurveID: curve})
}

func ecdsaScheme(hash tpm2.TPMAlgID) tpm2.TPMTECCScheme {
	return tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})}
}

func ecdsaHash(hash tpm2.TPMAlgID) func(*tpm2.TPMTPublic) {
	return func(p *tpm2.TPMTPublic) { p.Parameters = eccParms(ecdsaScheme(hash), tpm2.TPMECCNistP256) }
}

func curve(c tpm2.TPMECCCurve) func(*tpm2.TPMTPublic) {
	return func(p *tpm2.TPMTPublic) { p.Parameters = eccParms(ecdsaScheme(tpm2.TPMAlgSHA256), c) }
}

func anyScheme(p *tpm2.TPMTPublic) {
	p.Parameters = eccParms(tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}, tpm2.TPMECCNistP256)
}

// Every attribute that the Name proves is asked for.
func TestForgedAttributes(t *testing.T) {
	tpm := controltest.StartSim(t)
	good := tpm.AK(nil).Public
	if _, err := ParseAK(tpm2.Marshal(&good)); err != nil {
		t.Fatalf("ParseAK of a good key: %v", err)
	}
	for what, change := range map[string]func(a *tpm2.TPMAObject){
		"restricted": func(a *tpm2.TPMAObject) { a.Restricted = false }, "fixedTPM": func(a *tpm2.TPMAObject) { a.FixedTPM = false },
		"fixedParent": func(a *tpm2.TPMAObject) { a.FixedParent = false }, "sensitiveDataOrigin": func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false },
		"sign": func(a *tpm2.TPMAObject) { a.SignEncrypt = false }, "decrypt": func(a *tpm2.TPMAObject) { a.Decrypt = true },
		"encryptedDuplication": func(a *tpm2.TPMAObject) { a.EncryptedDuplication = true }, "x509sign": func(a *tpm2.TPMAObject) { a.X509Sign = true },
	} {
		bad := good
		change(&bad.ObjectAttributes)
		if _, err := ParseAK(tpm2.Marshal(&bad)); !errors.Is(err, ErrRequest) {
			t.Errorf("ParseAK with another %s: %v", what, err)
		}
	}
	raw := tpm2.Marshal(&good)
	for n := range raw {
		if _, err := ParseAK(raw[:n]); !errors.Is(err, ErrRequest) {
			t.Errorf("ParseAK of %d bytes of %d: %v", n, len(raw), err)
		}
	}
	if _, err := ParseAK(append(slices.Clone(raw), 0)); !errors.Is(err, ErrRequest) {
		t.Errorf("ParseAK with a byte more: %v", err)
	}
	off := slices.Clone(raw)
	off[len(off)-1] ^= 1
	if _, err := ParseAK(off); !errors.Is(err, ErrRequest) {
		t.Errorf("ParseAK of a point off the curve: %v", err)
	}
}

func TestForeignTPMs(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	m := r.newMachine(h, "vm-1")
	anyone := Caller{Token: r.token(store.KindVTPM, "vm-1", true)}
	begin := func(who Caller, req *Request, change func(*Request)) error {
		change(req)
		_, err := r.s.Begin(t.Context(), req, who)
		return err
	}
	asHost := Caller{Token: r.token(store.KindHost, "h", true)}
	r.want("a vTPM as host", begin(asHost, m.request("h"), func(q *Request) { q.Kind = store.KindHost }), ErrRequest)
	r.want("a host's TPM as vTPM", begin(anyone, h.request(r, "vm-1"), func(q *Request) { q.Kind = store.KindVTPM }), ErrRequest)
	r.want("another machine's name", begin(anyone, m.request("vm-2"), func(*Request) {}), ErrRequest)
	r.want("no chain", begin(anyone, m.request("vm-1"), func(q *Request) { q.EKChain = nil }), ErrRequest)
	r.want("half a chain", begin(anyone, m.request("vm-1"), func(q *Request) { q.EKChain = q.EKChain[:1] }), ErrRequest)
	r.want("the AIK's certificate as EK's", begin(anyone, m.request("vm-1"), func(q *Request) { q.EKCertificate = h.aik.Raw }), ErrRequest)
	r.want("no kind", begin(anyone, m.request("vm-1"), func(q *Request) { q.Kind = "" }), ErrRequest)
	r.want("a bad name", begin(anyone, m.request("vm-1"), func(q *Request) { q.Name = "../x" }), ErrRequest)
	r.want("a TLS key for a vTPM", begin(anyone, m.request("vm-1"), func(q *Request) { q.CSR = []byte{1} }), ErrRequest)
	r.want("garbage for proof of creation", begin(anyone, m.request("vm-1"), func(q *Request) { q.Creation = &Creation{} }), ErrRequest)
	r.want("long chain", begin(anyone, m.request("vm-1"), func(q *Request) { q.EKChain = make([][]byte, 9) }), ErrRequest)
	other := newRig(t)
	r.want("an unknown maker", begin(asHost, h.request(other, "h"), func(*Request) {}), ErrRequest)
	// A host's AIK that signs an EK certificate itself leaves the card out.
	direct := r.issue(&ca.Issuer{Certificate: h.aik, Signer: h.tpm.Signer(h.ak)}, m.ek.Crypto)(ca.VTPMEK("vm-1", model, m.ek.Crypto, ca.Validity{Now: r.now, Life: time.Hour}))
	r.want("an EK without a card", begin(anyone, m.request("vm-1"), func(q *Request) { q.EKCertificate = direct.Raw }), ErrRequest)
	r.now = r.now.Add(101 * time.Hour)
	r.want("an ended chain", begin(anyone, m.request("vm-1"), func(*Request) {}), ErrRequest)
}

func TestTokens(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	m := r.newMachine(h, "vm-1")
	begin := func(token string) error {
		_, err := r.s.Begin(t.Context(), m.request("vm-1"), Caller{Token: token})
		return err
	}
	r.want("no token", begin(""), ErrDenied)
	r.want("made up", begin("x"), ErrDenied)
	r.want("the hash as token", begin(TokenHash(r.token(store.KindVTPM, "vm-1", true))), ErrDenied)
	r.want("another machine's", begin(r.token(store.KindVTPM, "vm-2", true)), ErrDenied)
	r.want("a host's", begin(r.token(store.KindHost, "vm-1", true)), ErrDenied)
	late := r.token(store.KindVTPM, "vm-1", true)
	r.now = r.now.Add(2 * time.Hour)
	r.want("ended", begin(late), ErrDenied)
	again := r.token(store.KindVTPM, "vm-1", true)
	for range 2 {
		if _, err := r.enrol(m.request("vm-1"), Caller{Token: again}, m.tpm, m.ek, m.ak); err != nil {
			t.Errorf("a token for more than once: %v", err)
		}
	}
	r.update(func(tx store.Tx) error {
		ek := KeyHash(m.cert.RawSubjectPublicKeyInfo)
		return errors.Join(store.VMs.Delete(tx, "vm-1"), store.Allowed.Put(tx, ek, store.Allow{EK: ek, Kind: store.KindVTPM, Name: "vm-1"}))
	})
	if err := begin(""); err != nil {
		t.Errorf("an EK that is allowed: %v", err)
	}
}

// Challenges can't fill the store, nor one caller's keep others from enrolling, and make
// room when they end.
func TestChallengesAreBounded(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	host := Caller{Host: "host-1"}
	waiting := func(n int, of Caller) {
		r.update(func(tx store.Tx) error {
			for range n {
				c := store.Challenge{ID: newID(), Expires: r.now.Add(time.Minute), From: of.Identity()}
				if err := store.Challenges.Put(tx, c.ID, c); err != nil {
					return err
				}
			}
			return nil
		})
	}
	begin := func(who Caller) error {
		_, err := r.s.Begin(t.Context(), h.request(r, "host-1"), who)
		return err
	}
	waiting(maxWaitingOfOne, r.who)
	r.want("too many of one address", begin(r.who), ErrBusy)
	r.want("another address", begin(Caller{Addr: "another"}), nil)
	waiting(maxWaitingOfHost-1, host)
	r.want("many of a host", begin(host), nil)
	r.want("too many of a host", begin(host), ErrBusy)
	waiting(maxWaiting, Caller{Addr: "a third"})
	r.want("too many of all", begin(Caller{Addr: "a fourth"}), ErrBusy)
	r.now = r.now.Add(10 * time.Minute)
	r.want("after they ended", begin(r.who), nil)
}

func TestIdentity(t *testing.T) {
	for who, want := range map[Caller]string{
		{Host: "host-1", Addr: "192.0.2.1"}:   "host host-1",
		{Addr: "192.0.2.1"}:                   "address 192.0.2.1",
		{Addr: "::ffff:192.0.2.1"}:            "address ::ffff:192.0.2.1",
		{Addr: "2001:db8:1:2:3:4:5:6"}:        "address 2001:db8:1:2::/64",
		{Addr: "2001:db8:1:2:ffff::1"}:        "address 2001:db8:1:2::/64",
		{Addr: "fe80::1%eth0"}:                "address fe80::/64",
		{Addr: "not an address, from a test"}: "address not an address, from a test",
	} {
		if got := who.Identity(); got != want {
			t.Errorf("%+v: %q, want %q", who, got, want)
		}
	}
}

func FuzzParseAK(f *testing.F) {
	template := controltest.AKTemplate()
	f.Add(tpm2.Marshal(&template))
	f.Add(tpm2.Marshal(tpm2.New2B(tpm2.RSAEKTemplate)))
	f.Fuzz(func(t *testing.T, b []byte) {
		ak, err := ParseAK(b)
		if err != nil {
			return
		}
		if again, err := ParseAK(ak.Public); err != nil || again.NameText() != ak.NameText() {
			t.Errorf("ParseAK of its own public area: %v", err)
		}
	})
}

// TestUnfitTLSKey: what a key of absurd size would cost is not spent on its signature.
func TestUnfitTLSKey(t *testing.T) {
	for _, c := range []struct {
		curve elliptic.Curve
		want  string
	}{{elliptic.P224(), "unfit kind"}, {elliptic.P256(), "verification failure"}} {
		key, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		csr[len(csr)-1] ^= 1 // in its signature
		if _, err := readCSR(&Request{Kind: store.KindHost, CSR: csr}); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.curve.Params().Name, err, c.want)
		}
	}
}

// A TPM is one machine's: its copy in another name enrols nowhere, whoever vouches for it,
// until an operator has taken the first name back.
func TestOneMachineOfOneTPM(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	m := r.newMachine(h, "vm-1")
	copied := r.inAnotherName(m, "vm-2")
	byHost := Caller{Host: "host-1"}
	enrol := func(m *machine, vm string, who Caller) error {
		_, err := r.enrol(m.request(vm), who, m.tpm, m.ek, m.ak)
		return err
	}
	early, err := r.s.Begin(t.Context(), copied.request("vm-2"), byHost)
	r.want("a challenge before anybody has the TPM", err, nil)
	r.want("the machine", enrol(m, "vm-1", byHost), nil)
	secret, err := copied.tpm.Activate(copied.ek, copied.ak, early.Blob, early.Secret)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.s.Finish(t.Context(), early.ID, secret, byHost)
	r.want("the copy, which began first", err, ErrDenied)
	r.want("the copy, by its host", enrol(copied, "vm-2", byHost), ErrDenied)
	r.want("the copy, with a token", enrol(copied, "vm-2", Caller{Token: r.token(store.KindVTPM, "vm-2", false)}), ErrDenied)
	r.want("the machine again", enrol(m, "vm-1", byHost), nil)
	r.update(func(tx store.Tx) error { return store.VMs.Delete(tx, "vm-1") })
	r.want("the other name after the first was taken back", enrol(copied, "vm-2", byHost), nil)
	r.want("the first name after that", enrol(m, "vm-1", byHost), ErrDenied)
}
