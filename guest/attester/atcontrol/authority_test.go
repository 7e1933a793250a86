// SPDX-License-Identifier: Apache-2.0

package atcontrol

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/control/ca"
	"hwvtpm/control/client"
	"hwvtpm/control/enrol"
	"hwvtpm/vtpm/door"
)

// What a guest sends arrives as a machine's enrolment, with its token as the bearer's,
// and what the server answers comes back.
func TestAuthority(t *testing.T) {
	var asked enrol.Request
	var token string
	var secret []byte
	mux := http.NewServeMux()
	srv := httptest.NewTLSServer(mux)
	defer srv.Close()
	cert := srv.Certificate()
	answer := func(w http.ResponseWriter, v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("POST /v1/enrol", func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("Authorization")
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		answer(w, enrol.Challenge{ID: "an-id", Credential: enrol.Credential{Blob: []byte{4}, Secret: []byte{5}}})
	})
	mux.HandleFunc("POST /v1/enrol/an-id", func(w http.ResponseWriter, r *http.Request) {
		var proof struct{ Secret []byte }
		if err := json.NewDecoder(r.Body).Decode(&proof); err != nil {
			t.Error(err)
		}
		secret = proof.Secret
		answer(w, map[string]string{"certificate": string(ca.PEM(cert)), "chain": string(ca.PEM(cert, cert))})
	})
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	c, err := client.New(client.Config{URL: srv.URL, Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := New(c)

	challenge, err := at.Enrol(t.Context(), &door.EnrolRequest{
		Name: "vm-1", Token: "a token", EKCertificate: []byte{1}, EKChain: [][]byte{{2}}, AKPublic: []byte{3},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := enrol.Request{Kind: "vtpm", Name: "vm-1", EKCertificate: []byte{1}, EKChain: [][]byte{{2}}, AKPublic: []byte{3}}
	if d := cmp.Diff(want, asked); d != "" || token != "Bearer a token" {
		t.Errorf("asked by %q: %s", token, d)
	}
	if d := cmp.Diff(&door.Challenge{ID: "an-id", Blob: []byte{4}, Secret: []byte{5}}, challenge); d != "" {
		t.Error(d)
	}
	got, err := at.Prove(t.Context(), &door.Proof{ID: challenge.ID, Secret: []byte{6}})
	if err != nil {
		t.Fatal(err)
	}
	if one := string(ca.PEM(cert)); got.Certificate != one || got.Chain != one+one || string(secret) != "\x06" {
		t.Errorf("proved by %x: %+v", secret, got)
	}
	if _, err := at.Prove(t.Context(), &door.Proof{ID: "other", Secret: []byte{6}}); err == nil {
		t.Error("a proof of an unknown challenge is taken")
	}
}
