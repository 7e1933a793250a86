// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
)

// Call asks the host, by the texts that go over a channel.
func (r *Rig) Call(ctx context.Context, op string, body, result any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if body == nil {
		text = nil
	}
	got, err := r.Do(ctx, door.Caller{VM: VM, UID: -1}, op, text)
	if err != nil {
		return err
	}
	if text, err = json.Marshal(got); err != nil {
		return err
	}
	return json.Unmarshal(text, result)
}

// Do implements door.Handler: the host answers as its daemon does, but that it is the
// authority itself.
func (r *Rig) Do(_ context.Context, _ door.Caller, op string, body json.RawMessage) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, op)
	answer, err := r.do(op, body)
	if err == nil && r.Spoil != nil {
		r.Spoil(op, answer)
	}
	return answer, err
}

// Requests are the operations that the host was asked for.
func (r *Rig) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// do is called with mu held.
func (r *Rig) do(op string, body json.RawMessage) (any, error) {
	switch op {
	case door.OpHello:
		return &door.Hello{Version: door.Version, VM: VM}, nil
	case door.OpEK:
		return &[]door.EK{{Handle: 0x8101000a, Certificate: r.EK.Raw, Chain: [][]byte{r.Authority.Attestation.Certificate.Raw}}}, nil
	case door.OpEnrol:
		var req door.EnrolRequest
		if err := door.Decode(body, &req); err != nil {
			return nil, err
		}
		return r.Challenge(&req)
	case door.OpProve:
		var p door.Proof
		if err := door.Decode(body, &p); err != nil {
			return nil, err
		}
		return r.certify(&p)
	case door.OpEvidence:
		var req door.EvidenceRequest
		if err := door.Decode(body, &req); err != nil {
			return nil, err
		}
		return r.evidence(&req)
	}
	return nil, door.Errorf(door.CodeNotFound, "no operation %q", op)
}

// Challenge makes a credential for an AK beside the machine's EK. It is for Spoil, too.
func (r *Rig) Challenge(req *door.EnrolRequest) (*door.Challenge, error) {
	if req.Name != VM || !bytes.Equal(req.EKCertificate, r.EK.Raw) {
		return nil, door.Errorf(door.CodeDenied, "not %s", req.Name)
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](req.AKPublic)
	r.fatal(err)
	ak, err := public.Contents()
	r.fatal(err)
	name, err := tpm2.ObjectName(ak)
	r.fatal(err)
	key, err := tpm2.ImportEncapsulationKey(&r.ekKey)
	r.fatal(err)
	id, secret := rand.Text(), make([]byte, 32)
	rand.Read(secret)
	blob, wrapped, err := tpm2.CreateCredential(rand.Reader, key, name.Buffer, secret)
	r.fatal(err)
	r.secrets[id], r.aks[id] = secret, ak
	return &door.Challenge{ID: id, Blob: tpm2.Marshal(tpm2.TPM2BIDObject{Buffer: blob}), Secret: tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: wrapped})}, nil
}

func (r *Rig) certify(p *door.Proof) (*door.Certified, error) {
	if secret := r.secrets[p.ID]; secret == nil || !bytes.Equal(secret, p.Secret) {
		return nil, door.Errorf(door.CodeDenied, "no proof")
	}
	key, err := tpm2.Pub(*r.aks[p.ID])
	r.fatal(err)
	template, err := ca.VTPMAIK(VM, life())
	r.fatal(err)
	cert, err := r.Authority.Attestation.Issue(template, key)
	r.fatal(err)
	return &door.Certified{
		Certificate: string(ca.PEM(cert)), Chain: string(ca.PEM(r.Authority.Attestation.Certificate, r.Authority.Root.Certificate)),
	}, nil
}

// evidence is the machine's, which must hold, and a binding that says nothing.
func (r *Rig) evidence(req *door.EvidenceRequest) (*attest.Evidence, error) {
	var m attest.Machine
	r.fatal(json.Unmarshal(req.VM, &m))
	if _, err := attest.CheckMachine(&m, req.Nonce, r.Authority.Roots(), time.Now()); err != nil {
		return nil, door.Errorf(door.CodeDenied, "%w", err)
	}
	none := attest.Bytes("none")
	return &attest.Evidence{Version: attest.Version, PCRMap: attest.ModeOff, VM: m, Binding: attest.Binding{
		Chain: "none", EKPublic: none, Statement: none, CardQuote: attest.Quote{Attest: none, Signature: none},
	}}, nil
}
