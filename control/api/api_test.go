// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/operator"
	"hwvtpm/control/store"
)

// A host enrols with a token and gets a TLS key; with that it enrols the machines
// on it, until it is revoked, which the list says too.
func TestHostThenMachine(t *testing.T) {
	r := newRig(t, 1000)
	h := r.newHost("host-1")
	asHost := r.client("", h.tls)
	req, tpm, ek, ak := r.newMachine(h, "vm-1")
	r.client("").want(http.StatusForbidden, "POST", "/v1/enrol", req)
	got := asHost.enrol(req, tpm, ek, ak)
	certs, err := ca.ParsePEM([]byte(got.Certificate + got.Chain))
	r.fatal(err)
	if vm, err := ca.IsVTPMAIK(certs[0]); vm != "vm-1" || err != nil {
		t.Errorf("certificate of %q, %v", vm, err)
	}
	if _, err := ca.Verify(certs[0], certs[1:], r.cfg.Authority.Roots(), r.now()); err != nil {
		t.Error(err)
	}
	text := r.client("").want(http.StatusOK, "GET", "/v1/ca", nil)
	if got, err := ca.ParsePEM(text); err != nil || len(got) != 3 || !ca.Same(got[0], r.cfg.Authority.Root.Certificate) {
		t.Errorf("/v1/ca: %d certificates, %v", len(got), err)
	}
	serials, err := r.cfg.Operator.Revoke(t.Context(), operator.RevokeRequest{Kind: store.KindHost, Name: "host-1", Reason: ca.ReasonKeyCompromise})
	if err != nil || len(serials) != 2 {
		t.Fatalf("Revoke: %v, %v", serials, err)
	}
	asHost.want(http.StatusUnauthorized, "POST", "/v1/enrol", req)
	r.client("").want(http.StatusForbidden, "POST", "/v1/enrol", h.req)
	r.client(r.token(store.KindVTPM, "vm-1")).want(http.StatusForbidden, "POST", "/v1/enrol", req)
	for issuer, serial := range map[string]*big.Int{ca.NameAttestation: h.aik.SerialNumber, ca.NameService: h.tls.Leaf.SerialNumber} {
		list, err := x509.ParseRevocationList(r.client("").want(http.StatusOK, "GET", "/v1/crl/"+issuer, nil))
		if err != nil || len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(serial) != 0 {
			t.Errorf("list of %s: %+v, %v", issuer, list, err)
		}
	}
}

// TLS keys that we did not certify speak for nobody, unless they are pinned.
func TestTLSIdentities(t *testing.T) {
	r := newRig(t, 1000)
	h := r.newHost("host-1")
	req, _, _, _ := r.newMachine(h, "vm-1")
	v := ca.Validity{Now: r.now(), Life: time.Hour}
	with := func(i *ca.Issuer) tls.Certificate {
		key := r.key()
		if i == nil {
			i = &ca.Issuer{Signer: key}
			template, err := ca.TLSClient("host-1", v)
			r.fatal(err)
			i.Certificate = template
		}
		cert := r.issue(i, key.Public())(ca.TLSClient("host-1", v))
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	}
	own := with(nil)
	for what, cert := range map[string]tls.Certificate{
		"self-signed": own, "another authority's": with(r.maker), "by the attestation issuer": with(r.cfg.Authority.Attestation),
		"not in the records": with(r.cfg.Authority.Service),
	} {
		if status, text := r.client("", cert).do("POST", "/v1/enrol", req); status != http.StatusUnauthorized {
			t.Errorf("%s: status %d: %s", what, status, text)
		}
	}
	err := r.cfg.Operator.Pin(t.Context(), store.Pin{Key: enrol.KeyHash(own.Leaf.RawSubjectPublicKeyInfo), Host: "host-1"})
	r.fatal(err)
	r.client("", own).want(http.StatusCreated, "POST", "/v1/enrol", req)
	r.advance(31 * 24 * time.Hour)
	r.client("", h.tls).want(http.StatusUnauthorized, "POST", "/v1/enrol", req)
}

func TestHostileClients(t *testing.T) {
	r := newRig(t, 1000)
	c := r.client("x")
	for what, tc := range map[string]struct {
		status       int
		method, path string
		body         any
	}{
		"garbage":         {400, "POST", "/v1/enrol", []byte("garbage")},
		"empty":           {400, "POST", "/v1/enrol", nil},
		"empty object":    {400, "POST", "/v1/enrol", []byte("{}")},
		"null":            {400, "POST", "/v1/enrol", []byte("null")},
		"unknown member":  {400, "POST", "/v1/enrol", []byte(`{"admin":true}`)},
		"two values":      {400, "POST", "/v1/enrol", []byte(`{}{}`)},
		"wrong types":     {400, "POST", "/v1/enrol", []byte(`{"kind":7}`)},
		"deep":            {400, "POST", "/v1/enrol", bytes.Repeat([]byte("["), 100_000)},
		"too large":       {413, "POST", "/v1/enrol", append([]byte(`{"name":"`), bytes.Repeat([]byte("a"), maxBody)...)},
		"bad certificate": {400, "POST", "/v1/enrol", enrol.Request{Kind: "host", Name: "h", EKCertificate: []byte{0x30}}},
		"long name":       {400, "POST", "/v1/enrol", enrol.Request{Kind: "host", Name: strings.Repeat("a", 1000)}},
		"no challenge":    {403, "POST", "/v1/enrol/0123456789abcdef0123456789abcdef", Proof{[]byte("x")}},
		"path as id":      {404, "POST", "/v1/enrol/../../etc/passwd", Proof{}},
		"no such list":    {404, "GET", "/v1/crl/nobody", nil},
		"operator's door": {404, "POST", "/v1/token", operator.TokenRequest{}},
		"records":         {404, "GET", "/v1/records", nil},
		"method":          {405, "GET", "/v1/enrol", nil},
	} {
		if status, text := c.do(tc.method, tc.path, tc.body); status != tc.status {
			t.Errorf("%s: status %d, want %d: %s", what, status, tc.status, text)
		}
	}
	long := r.client(strings.Repeat("t", maxToken+1))
	long.want(http.StatusUnauthorized, "POST", "/v1/enrol", enrol.Request{})
	r.client("").want(http.StatusOK, "GET", "/healthz", nil)
	text := string(c.want(http.StatusOK, "GET", "/metrics", nil))
	for _, line := range []string{`{route="enrol",status="413"} 1`, `{route="prove",status="403"} 1`, `{route="healthz",status="200"} 1`} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %s:\n%s", line, text)
		}
	}
}

// What went wrong inside is for the log, not for callers.
func TestInsideStaysInside(t *testing.T) {
	r := newRig(t, 1000)
	r.fatal(r.cfg.Store.Close())
	if text := r.client("").want(http.StatusInternalServerError, "GET", "/healthz", nil); strings.Contains(string(text), "store") {
		t.Errorf("the answer tells of the inside: %s", text)
	}
}

func TestRateLimit(t *testing.T) {
	r := newRig(t, 3)
	c := r.client("")
	for range 3 {
		c.want(http.StatusBadRequest, "POST", "/v1/enrol", []byte("x"))
	}
	c.want(http.StatusTooManyRequests, "POST", "/v1/enrol", []byte("x"))
	c.want(http.StatusTooManyRequests, "POST", "/v1/enrol/x", []byte("x"))
	c.want(http.StatusOK, "GET", "/healthz", nil)
	r.advance(time.Second)
	c.want(http.StatusBadRequest, "POST", "/v1/enrol", []byte("x"))
	c.want(http.StatusTooManyRequests, "POST", "/v1/enrol", []byte("x"))
}

func TestLimiterIsBounded(t *testing.T) {
	l, now := newLimiter(2, 1), time.Unix(1, 0)
	for i := range maxIdentities {
		if !l.allow(string(rune(i+1)), now) {
			t.Fatalf("identity %d is held back", i)
		}
	}
	if l.allow("new", now) {
		t.Error("one identity too many")
	}
	if !l.allow(string(rune(1)), now) {
		t.Error("a known identity suffers from others")
	}
	if !l.allow("new", now.Add(time.Minute)) || len(l.known) != 1 {
		t.Errorf("%d identities are remembered", len(l.known))
	}
}

// The operator's requests are checked as others are.
func TestOperatorDoor(t *testing.T) {
	r := newRig(t, 1000)
	h := r.public.Operator()
	post := func(path string, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(body))
		r.fatal(err)
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, req)
		return w.status, w.body.String()
	}
	hash := strings.Repeat("ab", 32)
	for _, tc := range []struct {
		status     int
		path, body string
	}{
		{200, "/v1/token", `{"kind":"host","name":"h","life":3600000000000}`},
		{400, "/v1/token", `{"kind":"host","name":"h"}`},
		{400, "/v1/token", `{"kind":"x","name":"h","life":1}`},
		{400, "/v1/token", `{"kind":"vtpm","name":"a/b","life":1}`},
		{200, "/v1/allow", `{"kind":"host","name":"h","ek":"` + hash + `"}`},
		{400, "/v1/allow", `{"kind":"host","name":"h","ek":"` + strings.ToUpper(hash) + `"}`},
		{200, "/v1/deny", `{"key":"` + hash + `","reason":"` + strings.Repeat("x", 5000) + `"}`},
		{400, "/v1/deny", `{"key":"zz"}`},
		{200, "/v1/pin", `{"key":"` + hash + `","host":"h"}`},
		{400, "/v1/pin", `{"key":"` + hash + `","host":""}`},
		{404, "/v1/revoke", `{"serial":"ff"}`},
		{400, "/v1/revoke", `{"kind":"host","name":"h","reason":77}`},
		{400, "/v1/revoke", `{}`},
		{200, "/v1/revoke", `{"kind":"host","name":"h"}`},
	} {
		if status, text := post(tc.path, tc.body); status != tc.status {
			t.Errorf("%s %.60s: status %d, want %d: %s", tc.path, tc.body, status, tc.status, text)
		}
	}
	records, err := r.cfg.Operator.List(t.Context())
	if err != nil || len(records.Tokens)+len(records.Allowed)+len(records.Pins) != 0 || len(records.Denied) != 1 {
		text, _ := json.Marshal(records)
		t.Errorf("after revoking the host: %s, %v", text, err)
	}
}

// recorder is a response writer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(p []byte) (int, error) { return w.body.Write(p) }
