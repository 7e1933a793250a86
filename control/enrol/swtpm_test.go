// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/store"
)

// newMakersRig is a rig that trusts the maker of a TPM by its folder.
func newMakersRig(t *testing.T, tpm *controltest.Swtpm) *rig {
	t.Helper()
	r := newRig(t)
	m, err := LoadManufacturers(tpm.Manufacturer)
	if err != nil || m.Count() != 1 {
		t.Fatalf("LoadManufacturers: %d, %v", m.Count(), err)
	}
	r.cfg.Manufacturers = m
	r.s = New(r.cfg)
	return r
}

// A TPM as it is sold enrols by each of its EKs, with the certificates in its NV.
func TestManufacturedTPM(t *testing.T) {
	tpm := controltest.StartSwtpm(t)
	r := newMakersRig(t, tpm)
	for name, at := range map[string]struct{ cert, key tpm2.TPMHandle }{
		"rsa": {0x01c00002, 0x81010001}, "p-384": {0x01c00016, 0x81010016},
	} {
		r.update(func(tx store.Tx) error { return store.Hosts.Delete(tx, "host-1") })
		ek, ak := tpm.Persistent(at.key), tpm.AK(nil)
		req := &Request{Kind: store.KindHost, Name: "host-1", EKCertificate: tpm.ReadNV(at.cert), AKPublic: ak.TPM2B()}
		if _, err := r.enrol(req, Caller{Token: r.token(store.KindHost, "host-1", false)}, tpm.TPM, ek, ak); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		req.EKCertificate = tpm.ReadNV(0x01c08000)
		_, err := r.s.Begin(t.Context(), req, r.who)
		r.want("the platform certificate", err, ErrRequest)
		tpm.Flush(ak)
	}
	_, err := newRig(t).s.Begin(t.Context(), &Request{Kind: store.KindHost, Name: "host-1", EKCertificate: tpm.ReadNV(0x01c00002), AKPublic: tpm.AK(nil).TPMT()}, r.who)
	r.want("a maker who is not trusted", err, ErrRequest)
}

// channel frames a TPM's socket for go-attestation: a whole response per Read.
type channel struct{ net.Conn }

func (c channel) Read(p []byte) (int, error) {
	if _, err := io.ReadFull(c.Conn, p[:6]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint32(p[2:]))
	if n < 10 || n > len(p) {
		return 0, fmt.Errorf("response of %d bytes", n)
	}
	_, err := io.ReadFull(c.Conn, p[6:n])
	return n, err
}

func (channel) MeasurementLog() ([]byte, error) { return nil, nil }

// A client made with go-attestation enrols, proof of creation included.
func TestGoAttestationClient(t *testing.T) {
	sw := controltest.StartSwtpm(t)
	r := newMakersRig(t, sw)
	conn, err := net.Dial("unix", sw.Socket)
	if err != nil {
		t.Fatal(err)
	}
	tpm, err := attest.OpenTPM(&attest.OpenConfig{CommandChannel: channel{conn}})
	if err != nil {
		t.Fatal(err)
	}
	defer tpm.Close()
	eks, err := tpm.EKs()
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []attest.Algorithm{attest.ECDSA, attest.RSA} {
		ak, err := tpm.NewAK(&attest.AKConfig{Algorithm: alg})
		if err != nil {
			t.Fatal(err)
		}
		p := ak.AttestationParameters()
		req := &Request{
			Kind: store.KindHost, Name: "host-1", EKCertificate: eks[0].Certificate.Raw, AKPublic: p.Public,
			Creation: &Creation{Data: p.CreateData, Attestation: p.CreateAttestation, Signature: p.CreateSignature},
		}
		who := Caller{Token: r.token(store.KindHost, "host-1", false)}
		c, err := r.s.Begin(t.Context(), req, who)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := ak.ActivateCredentialWithEK(tpm, attest.EncryptedCredential{Credential: c.Blob, Secret: c.Secret}, eks[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.s.Finish(t.Context(), c.ID, secret, who)
		if err != nil {
			t.Fatal(err)
		}
		if host, err := ca.IsHostAIK(got.Certificate); host != "host-1" || err != nil {
			t.Errorf("certificate of %q, %v", host, err)
		}
		p.CreateSignature[len(p.CreateSignature)-1] ^= 1
		_, err = r.s.Begin(t.Context(), req, r.who)
		r.want("a forged proof of creation", err, ErrRequest)
		if err := ak.Close(tpm); err != nil {
			t.Error(err)
		}
	}
}
