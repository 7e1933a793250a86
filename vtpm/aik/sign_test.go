// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"hwvtpm/control/ca"
)

// TestIssue: the host's TPM signs a card's certificate, and everybody believes it who
// trusts the authority.
func TestIssue(t *testing.T) {
	card := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	for name, alg := range bothTypes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			h := r.open(Options{Key: alg})
			authority, host := hostAIK(t, h)
			issuer := &ca.Issuer{Certificate: host, Signer: h.Signer()}
			for _, size := range []int{0, 3000, 20000} {
				template := must(ca.CoprocessorAIK("0011223344556677", ca.Validity{Now: time.Now(), Life: time.Minute}))(t)
				if size != 0 {
					template = long(template, size)
				}
				cert := must(issuer.Issue(template, card.Public()))(t)
				if size != 0 && len(cert.RawTBSCertificate) <= h.limit {
					t.Errorf("%d bytes to be signed, want more than the TPM hashes at once", len(cert.RawTBSCertificate))
				}
				others := []*x509.Certificate{host, authority.Attestation.Certificate}
				if chain, err := ca.Verify(cert, others, authority.Roots(), time.Now()); err != nil || len(chain) != 4 {
					t.Errorf("chain of %d certificates, %v", len(chain), err)
				}
				if serial, err := ca.IsCoprocessorAIK(cert); size == 0 && (err != nil || serial != "0011223344556677") {
					t.Errorf("certificate of %q, %v", serial, err)
				}
			}
			r.empty("after certificates")
		})
	}
}

// TestSignSizes: around what fits into one command, nothing is lost or doubled.
func TestSignSizes(t *testing.T) {
	r := newRig(t)
	h := r.open(Options{})
	s := h.Signer().(crypto.MessageSigner)
	for _, n := range []int{0, 1, 3, 4, h.limit - 1, h.limit, h.limit + 1, 2 * h.limit, 2*h.limit + 1, MaxMessage} {
		msg := make([]byte, n)
		rand.Read(msg)
		sig, err := s.SignMessage(nil, msg, crypto.SHA256)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		digest := sha256.Sum256(msg)
		if !ecdsa.VerifyASN1(h.Public().(*ecdsa.PublicKey), digest[:], sig) {
			t.Errorf("%d bytes: the signature is wrong", n)
		}
	}
	r.empty("after signatures")
}

// TestSignRefuses: a restricted key signs nothing that could be taken for a
// statement of its TPM, nor what the TPM did not hash.
func TestSignRefuses(t *testing.T) {
	r := newRig(t)
	s := r.open(Options{}).Signer().(crypto.MessageSigner)
	attest := append([]byte("\xffTCG"), make([]byte, 100)...)
	for name, tc := range map[string]struct {
		msg  []byte
		opts crypto.SignerOpts
		want error // or any
	}{
		"TPMS_ATTEST":      {attest, crypto.SHA256, ErrForged},
		"long TPMS_ATTEST": {append(attest, make([]byte, 5000)...), crypto.SHA256, ErrForged},
		"only the magic":   {attest[:4], crypto.SHA256, ErrForged},
		"other hash":       {[]byte("x"), crypto.SHA384, nil},
		"PSS":              {[]byte("x"), &rsa.PSSOptions{Hash: crypto.SHA256}, nil},
		"too long":         {make([]byte, MaxMessage+1), crypto.SHA256, nil},
	} {
		sent := r.bus.sent
		if _, err := s.SignMessage(rand.Reader, tc.msg, tc.opts); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if r.bus.sent != sent {
			t.Errorf("%s: the TPM was asked", name)
		}
	}
	digest := sha256.Sum256([]byte("x"))
	if _, err := s.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
		t.Error("signed a digest from outside")
	}
}

// TestLyingTPM: a signature, digest or quote that is not what was asked for does not get
// out.
func TestLyingTPM(t *testing.T) {
	for name, twist := range map[string]func(cmd, rsp []byte) []byte{
		"signature": func(cmd, rsp []byte) []byte {
			if c := code(cmd); c == 0x15d || c == 0x158 { // Sign, Quote
				rsp[len(rsp)-10] ^= 1
			}
			return rsp
		},
		"digest": func(cmd, rsp []byte) []byte {
			if c := code(cmd); c == 0x17d || c == 0x158 { // Hash, Quote
				rsp[30] ^= 1
			}
			return rsp
		},
		"nothing": func(cmd, rsp []byte) []byte {
			if c := code(cmd); c == 0x15d || c == 0x158 {
				return nil
			}
			return rsp
		},
		"half": func(cmd, rsp []byte) []byte {
			if c := code(cmd); c == 0x15d || c == 0x158 {
				return rsp[:len(rsp)/2]
			}
			return rsp
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			h := r.open(Options{})
			r.bus.twist = twist
			if _, err := h.Signer().(crypto.MessageSigner).SignMessage(nil, []byte("message"), crypto.SHA256); !errors.Is(err, ErrTPM) {
				t.Errorf("SignMessage: %v, want %v", err, ErrTPM)
			}
			if _, err := h.Quote(t.Context(), bytes.Repeat([]byte{1}, 32), Selection([]uint{0}, hashAlg)); !errors.Is(err, ErrTPM) {
				t.Errorf("Quote: %v, want %v", err, ErrTPM)
			}
			r.bus.twist = nil
			r.empty("after lies")
		})
	}
}
