// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
)

// Host answers a machine as its daemon does, but that it is the authority itself.
type Host struct {
	Authority *ca.Authority
	EK        *x509.Certificate // of the machine's

	// Spoil changes what the host answers, if it is there.
	Spoil func(op string, answer any)

	t     testing.TB
	ekKey tpm2.TPMTPublic

	mu       sync.Mutex // guards what follows
	requests []string
	secrets  map[string][]byte
	aks      map[string]*tpm2.TPMTPublic
}

var model = ca.Model{Manufacturer: "id:48575654", Model: "hwvtpm", Version: "id:00000001", Family: "2.0", Revision: 164}

// NewHost makes an authority, which certifies the machine's EK.
func NewHost(t testing.TB, ek tpm2.TPMTPublic) *Host {
	t.Helper()
	keys := t.TempDir()
	h := &Host{t: t, ekKey: ek, secrets: map[string][]byte{}, aks: map[string]*tpm2.TPMTPublic{}}
	var err error
	h.Authority, err = ca.Create(keys, "test", ca.FileKeys{Dir: keys}, time.Now().Add(-time.Hour))
	h.fatal(err)
	h.EK = h.Certify(h.Authority.Attestation)
	return h
}

func (h *Host) fatal(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// Certify makes an EK certificate of another issuer.
func (h *Host) Certify(issuer *ca.Issuer) *x509.Certificate {
	h.t.Helper()
	key, err := tpm2.Pub(h.ekKey)
	h.fatal(err)
	template, err := ca.VTPMEK(VM, model, key, life())
	h.fatal(err)
	cert, err := issuer.Issue(template, key)
	h.fatal(err)
	return cert
}

func life() ca.Validity { return ca.Validity{Now: time.Now(), Life: 24 * time.Hour} }

// Call asks the host, by the texts that go over a channel.
func (h *Host) Call(ctx context.Context, op string, body, result any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if body == nil {
		text = nil
	}
	got, err := h.Do(ctx, door.Caller{VM: VM, UID: -1}, op, text)
	if err != nil {
		return err
	}
	if text, err = json.Marshal(got); err != nil {
		return err
	}
	return json.Unmarshal(text, result)
}

// Do implements door.Handler.
func (h *Host) Do(_ context.Context, _ door.Caller, op string, body json.RawMessage) (any, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, op)
	answer, err := h.do(op, body)
	if err == nil && h.Spoil != nil {
		h.Spoil(op, answer)
	}
	return answer, err
}

// Requests are the operations that the host was asked for.
func (h *Host) Requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// do is called with mu held.
func (h *Host) do(op string, body json.RawMessage) (any, error) {
	switch op {
	case door.OpHello:
		return &door.Hello{Version: door.Version, VM: VM}, nil
	case door.OpEK:
		return &[]door.EK{{Handle: 0x8101000a, Certificate: h.EK.Raw, Chain: [][]byte{h.Authority.Attestation.Certificate.Raw}}}, nil
	case door.OpEnrol:
		var req door.EnrolRequest
		if err := door.Decode(body, &req); err != nil {
			return nil, err
		}
		return h.Challenge(&req)
	case door.OpProve:
		var p door.Proof
		if err := door.Decode(body, &p); err != nil {
			return nil, err
		}
		return h.certify(&p)
	case door.OpEvidence:
		var req door.EvidenceRequest
		if err := door.Decode(body, &req); err != nil {
			return nil, err
		}
		return h.evidence(&req)
	}
	return nil, door.Errorf(door.CodeNotFound, "no operation %q", op)
}

// Challenge makes a credential for an AK beside the machine's EK. It is for Spoil, too.
func (h *Host) Challenge(req *door.EnrolRequest) (*door.Challenge, error) {
	if req.Name != VM || !bytes.Equal(req.EKCertificate, h.EK.Raw) {
		return nil, door.Errorf(door.CodeDenied, "not %s", req.Name)
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](req.AKPublic)
	if err != nil {
		return nil, err
	}
	ak, err := public.Contents()
	if err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		return nil, err
	}
	key, err := tpm2.ImportEncapsulationKey(&h.ekKey)
	if err != nil {
		return nil, err
	}
	id, secret := rand.Text(), make([]byte, 32)
	rand.Read(secret)
	blob, wrapped, err := tpm2.CreateCredential(rand.Reader, key, name.Buffer, secret)
	if err != nil {
		return nil, err
	}
	h.secrets[id], h.aks[id] = secret, ak
	return &door.Challenge{ID: id, Blob: tpm2.Marshal(tpm2.TPM2BIDObject{Buffer: blob}), Secret: tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: wrapped})}, nil
}

func (h *Host) certify(p *door.Proof) (*door.Certified, error) {
	if secret := h.secrets[p.ID]; secret == nil || !bytes.Equal(secret, p.Secret) {
		return nil, door.Errorf(door.CodeDenied, "no proof")
	}
	key, err := tpm2.Pub(*h.aks[p.ID])
	if err != nil {
		return nil, err
	}
	template, err := ca.VTPMAIK(VM, life())
	if err != nil {
		return nil, err
	}
	cert, err := h.Authority.Attestation.Issue(template, key)
	if err != nil {
		return nil, err
	}
	return &door.Certified{
		Certificate: string(ca.PEM(cert)), Chain: string(ca.PEM(h.Authority.Attestation.Certificate, h.Authority.Root.Certificate)),
	}, nil
}

// evidence is the machine's, which must hold, and a binding that says nothing.
func (h *Host) evidence(req *door.EvidenceRequest) (*attest.Evidence, error) {
	var m attest.Machine
	if err := json.Unmarshal(req.VM, &m); err != nil {
		return nil, err
	}
	if _, err := attest.CheckMachine(&m, req.Nonce, h.Authority.Roots(), time.Now()); err != nil {
		return nil, door.Errorf(door.CodeDenied, "%w", err)
	}
	none := attest.Bytes("none")
	return &attest.Evidence{Version: attest.Version, PCRMap: attest.ModeOff, VM: m, Binding: attest.Binding{
		Chain: "none", EKPublic: none, Statement: none, CardQuote: attest.Quote{Attest: none, Signature: none},
	}}, nil
}
