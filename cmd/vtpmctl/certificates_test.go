// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"hwvtpm/coproc/abi/ekcert"
	"hwvtpm/coproc/abi/ekcert/ekcerttest"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/internal/cli"
)

func TestCertify(t *testing.T) {
	r := newRig(t)
	r.must("slot create vm-a --keys rsa")
	if got := r.run("", "slot certify vm-a"); got.code != cli.ExitFailure || !strings.Contains(got.err, "no certificates") {
		t.Errorf("without certificates of the card: %+v", got)
	}
	if s := as[slotJSON](t, r.must("slot show vm-a --json")); len(s.EKCertificates) != 1 || s.EKCertificates[0].Handle != "0x81010001" || s.EKCertificates[0].Certificate != nil {
		t.Errorf("slot show: %+v", s.EKCertificates)
	}
	if out := r.must("slot show vm-a"); !strings.Contains(out, "not certified") {
		t.Errorf("slot show:\n%s", out)
	}
	conn, err := coprocd.Dial(t.Context(), r.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := admin.New(conn).SetCertificates(t.Context(), [][]byte{[]byte("anybody")}); err != nil {
		t.Fatal(err)
	}
	s := as[slotJSON](t, r.must("slot certify vm-a --json"))
	if want := "certificate by anybody"; len(s.EKCertificates) != 1 || s.EKCertificates[0].Index != "0x01c00002" || !bytes.Equal(s.EKCertificates[0].Certificate, []byte(want)) {
		t.Errorf("slot certify: %+v", s.EKCertificates)
	}
	if got := r.run("", "slot certify nobody"); got.code != exitNotFound {
		t.Errorf("slot certify of no slot: %+v", got)
	}
}

func TestCertificateLine(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := ekcert.Base("a\x1b[2Jcard", ekcert.Validity{})
	cert := ekcerttest.Issue(t, template, template, key.Public(), key)
	for want, c := range map[string]certificateJSON{
		"NV 0x01c0000a, issued by card a [2Jcard, SHA-256 ":  {Index: "0x01c0000a", Certificate: cert.Raw},
		"not in the TPM, issued by card a [2Jcard, SHA-256 ": {Certificate: cert.Raw},
		"not certified": {},
		"damaged":       {Problem: "damaged"},
		"x509: ":        {Certificate: []byte("garbage")},
	} {
		if got := c.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%+v is %q, want %q", c, got, want)
		}
	}
}
