// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
)

// rig is a server of an authority whose answers the test makes, and a client of it.
type rig struct {
	t         *testing.T
	authority *ca.Authority
	server    *httptest.Server
	client    *Client
	tls       *tls.Certificate
}

func newRig(t *testing.T, h http.HandlerFunc) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t}
	var err error
	r.authority, err = ca.Create(dir, "test", ca.FileKeys{Dir: dir}, time.Now())
	r.fatal(err)
	cert, err := r.authority.ServerCertificate([]string{"127.0.0.1"}, hour())
	r.fatal(err)
	r.server = httptest.NewUnstartedServer(h)
	r.server.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert}
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	path := filepath.Join(dir, "roots.pem")
	r.fatal(os.WriteFile(path, ca.PEM(r.authority.Root.Certificate), 0o600))
	roots, err := ReadRoots(path)
	r.fatal(err)
	r.client, err = New(Config{URL: r.server.URL + "/", Roots: roots, Certificate: func() (*tls.Certificate, error) {
		if r.tls == nil {
			return &tls.Certificate{}, nil
		}
		return r.tls, nil
	}})
	r.fatal(err)
	t.Cleanup(func() { r.client.Close() })
	return r
}

func hour() ca.Validity { return ca.Validity{Now: time.Now(), Life: time.Hour} }

func (r *rig) fatal(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// What is sent where, with the token and the caller's own certificate.
func TestEnrol(t *testing.T) {
	var seen []string
	var r *rig
	r = newRig(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		seen = append(seen, fmt.Sprintf("%s %s [%s] %d %s", req.Method, req.URL.Path, req.Header.Get("Authorization"), len(req.TLS.PeerCertificates), body))
		switch req.URL.Path {
		case "/v1/enrol":
			w.WriteHeader(http.StatusCreated)
			json.NewEncoder(w).Encode(enrol.Challenge{ID: "abc", Credential: enrol.Credential{Blob: []byte{1}, Secret: []byte{2}}})
		case "/v1/enrol/abc":
			json.NewEncoder(w).Encode(map[string]string{
				"certificate": string(ca.PEM(r.authority.Attestation.Certificate)), "tls": string(ca.PEM(r.authority.Service.Certificate)),
				"chain": string(ca.PEM(r.authority.Root.Certificate)),
			})
		}
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.fatal(err)
	template, err := ca.TLSClient("host-1", hour())
	r.fatal(err)
	own, err := r.authority.Service.Issue(template, key.Public())
	r.fatal(err)
	r.tls = &tls.Certificate{Certificate: [][]byte{own.Raw}, PrivateKey: key}
	c, err := r.client.Enrol(t.Context(), &enrol.Request{Kind: "host", Name: "host-1"}, "a token")
	if err != nil || c.ID != "abc" || string(c.Blob) != "\x01" || string(c.Secret) != "\x02" {
		t.Fatalf("Enrol: %+v, %v", c, err)
	}
	got, err := r.client.Prove(t.Context(), c.ID, []byte{3})
	if err != nil || !ca.Same(got.AIK, r.authority.Attestation.Certificate) || !ca.Same(got.TLS, r.authority.Service.Certificate) || len(got.Chain) != 1 {
		t.Errorf("Prove: %+v, %v", got, err)
	}
	if len(seen) != 2 || !strings.HasPrefix(seen[0], `POST /v1/enrol [Bearer a token] 1 {"kind":"host","name":"host-1"`) ||
		seen[1] != `POST /v1/enrol/abc [] 1 {"secret":"Aw=="}` {
		t.Errorf("requests %q", seen)
	}
}

func TestLists(t *testing.T) {
	var r *rig
	r = newRig(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.Method + " " + req.URL.Path {
		case "GET /v1/ca":
			w.Write(ca.PEM(r.authority.Root.Certificate, r.authority.Attestation.Certificate))
		case "GET /v1/crl/root":
			der, err := r.authority.Root.RevocationList(7, nil, hour())
			if err != nil {
				t.Error(err)
			}
			w.Write(der)
		case "POST /v1/verify":
			body, _ := io.ReadAll(req.Body)
			if want := `{"evidence":{"a":1},"nonce":"AQ==","policy":{"b":2}}`; string(body) != want {
				t.Errorf("body %s, want %s", body, want)
			}
			io.WriteString(w, `{"ok":true,"machine":"vm-1"}`)
		default:
			http.NotFound(w, req)
		}
	})
	certs, err := r.client.CA(t.Context())
	if err != nil || len(certs) != 2 || !ca.Same(certs[0], r.authority.Root.Certificate) {
		t.Errorf("CA: %d certificates, %v", len(certs), err)
	}
	list, err := r.client.CRL(t.Context(), ca.NameRoot)
	if err != nil || list.Number.Int64() != 7 || list.CheckSignatureFrom(r.authority.Root.Certificate) != nil {
		t.Errorf("CRL: %v", err)
	}
	result, err := r.client.Verify(t.Context(), json.RawMessage(`{"a":1}`), []byte{1}, json.RawMessage(`{"b":2}`))
	if err != nil || !result.OK || result.Machine != "vm-1" {
		t.Errorf("Verify: %+v, %v", result, err)
	}
}

// Refusals come with their status and text; names that would be another path are not
// asked for.
func TestRefusals(t *testing.T) {
	asked := 0
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		if asked++; strings.HasSuffix(req.URL.Path, "/busy") {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":"too many\n\u001b[2J"}`)
			return
		}
		http.Error(w, "<html>", http.StatusForbidden)
	})
	_, err := r.client.Prove(t.Context(), "busy", nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 503 || e.Message != "too many  [2J" || !e.Temporary() {
		t.Errorf("busy: %v", err)
	}
	_, err = r.client.Prove(t.Context(), "x", nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 403 || e.Message != "Forbidden" || e.Temporary() {
		t.Errorf("forbidden: %v", err)
	}
	for _, name := range []string{"", "..", "../ca", "a/b", "a?b"} {
		if _, err := r.client.Prove(t.Context(), name, nil); err == nil {
			t.Errorf("enrolment %q: no error", name)
		}
		if _, err := r.client.CRL(t.Context(), name); err == nil {
			t.Errorf("issuer %q: no error", name)
		}
	}
	if asked != 2 {
		t.Errorf("the server was asked %d times", asked)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// What is no answer is an error of the call, with all calls.
func TestUnfitAnswers(t *testing.T) {
	var r *rig
	for name, answer := range map[string]http.HandlerFunc{
		"garbage": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "garbage") },
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"empty":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") },
		"endless": func(w http.ResponseWriter, _ *http.Request) { io.CopyN(w, zeros{}, 2*maxAnswer) },
		"redirect": func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"two": func(w http.ResponseWriter, _ *http.Request) {
			text := string(ca.PEM(r.authority.Root.Certificate, r.authority.Root.Certificate))
			json.NewEncoder(w).Encode(map[string]string{"certificate": text})
		},
	} {
		r = newRig(t, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/elsewhere" {
				t.Error("a redirect was followed")
			}
			answer(w, req)
		})
		_, enrolErr := r.client.Enrol(t.Context(), &enrol.Request{}, "token")
		_, proveErr := r.client.Prove(t.Context(), "x", nil)
		_, caErr := r.client.CA(t.Context())
		_, listErr := r.client.CRL(t.Context(), ca.NameRoot)
		for call, err := range map[string]error{"Enrol": enrolErr, "Prove": proveErr, "CA": caErr, "CRL": listErr} {
			if err == nil {
				t.Errorf("%s, %s: no error", name, call)
			}
		}
	}
}

// A server of another authority is told nothing.
func TestForeignServer(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("the server was asked") })
	c, err := New(Config{URL: r.server.URL, Roots: x509.NewCertPool()})
	r.fatal(err)
	if _, err := c.Enrol(t.Context(), &enrol.Request{}, "token"); err == nil {
		t.Error("no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.client.CA(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
}

func TestConfig(t *testing.T) {
	roots := x509.NewCertPool()
	for url, good := range map[string]bool{
		"https://control": true, "https://control:8443/behind": true,
		"http://control": false, "control": false, "https://": false, "https://u:p@control": false, "https://control?x": false, "https://control/#x": false, ":": false,
	} {
		if _, err := New(Config{URL: url, Roots: roots}); (err == nil) != good {
			t.Errorf("%s: %v", url, err)
		} else if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("the error has the password: %v", err)
		}
	}
	if _, err := New(Config{URL: "https://control"}); err == nil {
		t.Error("without roots: no error")
	}
	for name, text := range map[string]string{"empty": "", "garbage": "garbage", "key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"} {
		path := filepath.Join(t.TempDir(), "roots.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRoots(path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := ReadRoots(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
