// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"hwvtpm/vtpm/aik"
	"hwvtpm/vtpm/door"
)

// Authority certifies attestation keys: the control server, or the host that asks it.
type Authority interface {
	Enrol(ctx context.Context, r *door.EnrolRequest) (*door.Challenge, error)
	Prove(ctx context.Context, p *door.Proof) (*door.Certified, error)
}

// AtDoor is the authority behind the host's door.
func AtDoor(d Door) Authority { return doorAuthority{d} }

type doorAuthority struct{ door Door }

func (a doorAuthority) Enrol(ctx context.Context, r *door.EnrolRequest) (*door.Challenge, error) {
	c := &door.Challenge{}
	return c, a.door.Call(ctx, door.OpEnrol, r, c)
}

func (a doorAuthority) Prove(ctx context.Context, p *door.Proof) (*door.Certified, error) {
	c := &door.Certified{}
	return c, a.door.Call(ctx, door.OpProve, p, c)
}

// EnrolOptions say how to enrol.
type EnrolOptions struct {
	// Name of the machine; empty takes that of the EK's certificate.
	Name string
	// Token of the control server, if it wants one.
	Token string
	// Host is asked for the EK's certificate if NV has none; it may be nil.
	Host Door
}

// Enrol has the AIK certified and keeps the certificate. If that fails, the one that
// was there stays. Errors: aik.ErrNoCertificate, aik.ErrCredential for a challenge of
// another TPM or key, ErrAnswer, those of the authority.
func (a *Attester) Enrol(ctx context.Context, at Authority, o EnrolOptions) (*Identity, error) {
	ek, err := a.EK()
	if errors.Is(err, aik.ErrNoCertificate) && o.Host != nil {
		return a.enrolAsking(ctx, at, o)
	}
	if err != nil {
		return nil, err
	}
	return a.enrol(ctx, at, ek, o)
}

// enrolAsking enrols with the EK's certificate that the host has. What could not be
// proven to be this TPM's is dropped: it would stand before what NV gets.
func (a *Attester) enrolAsking(ctx context.Context, at Authority, o EnrolOptions) (*Identity, error) {
	ek, err := a.askEK(ctx, o.Host)
	if err != nil {
		return nil, err
	}
	id, err := a.enrol(ctx, at, ek, o)
	if err != nil {
		err = errors.Join(err, os.Remove(filepath.Join(a.dir, ekFile)))
	}
	return id, err
}

func (a *Attester) enrol(ctx context.Context, at Authority, ek *EK, o EnrolOptions) (*Identity, error) {
	if o.Name == "" {
		o.Name = ek.VM
	}
	c, err := at.Enrol(ctx, &door.EnrolRequest{
		Name: o.Name, Token: o.Token, EKCertificate: ek.Certificate.Raw, EKChain: ek.Chain, AKPublic: a.Public(),
	})
	if err != nil {
		return nil, fmt.Errorf("enrol %s: %w", o.Name, err)
	}
	secret, err := a.key.Activate(c.Blob, c.Secret)
	if err != nil {
		return nil, fmt.Errorf("enrol %s: %w", o.Name, err)
	}
	got, err := at.Prove(ctx, &door.Proof{ID: c.ID, Secret: secret})
	if err != nil {
		return nil, fmt.Errorf("enrol %s: %w", o.Name, err)
	}
	id, err := a.identity(got.Certificate + got.Chain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return id, a.keep(certificateFile, id.text)
}

// askEK has the host say which certificate the EK has, and keeps it where aik looks
// for it. It takes the host's first one; if the TPM has not that key, it can't open
// the challenge.
func (a *Attester) askEK(ctx context.Context, host Door) (*EK, error) {
	var known []door.EK
	if err := host.Call(ctx, door.OpEK, nil, &known); err != nil {
		return nil, fmt.Errorf("%w, and the host: %w", aik.ErrNoCertificate, err)
	}
	if len(known) == 0 || len(known[0].Chain) >= maxChain {
		return nil, fmt.Errorf("%w, nor has the host", aik.ErrNoCertificate)
	}
	var text []byte
	for _, der := range append([][]byte{known[0].Certificate}, known[0].Chain...) {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if _, err := parsePEM(string(text)); err != nil {
		return nil, fmt.Errorf("%w: EK certificate: %w", ErrAnswer, err)
	}
	if err := a.keep(ekFile, string(text)); err != nil {
		return nil, err
	}
	return a.EK()
}
