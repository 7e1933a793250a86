// SPDX-License-Identifier: Apache-2.0

package atcontrol

import (
	"context"

	"hwvtpm/control/ca"
	"hwvtpm/control/client"
	"hwvtpm/control/enrol"
	"hwvtpm/control/store"
	"hwvtpm/guest/attester"
	"hwvtpm/vtpm/door"
)

// New is the authority that a control server is. The client stays the caller's.
func New(c *client.Client) attester.Authority { return server{c} }

type server struct{ client *client.Client }

func (s server) Enrol(ctx context.Context, r *door.EnrolRequest) (*door.Challenge, error) {
	req := enrol.Request{Kind: store.KindVTPM, Name: r.Name, EKCertificate: r.EKCertificate, EKChain: r.EKChain, AKPublic: r.AKPublic}
	c, err := s.client.Enrol(ctx, &req, r.Token)
	if err != nil {
		return nil, err
	}
	return &door.Challenge{ID: c.ID, Blob: c.Blob, Secret: c.Secret}, nil
}

func (s server) Prove(ctx context.Context, p *door.Proof) (*door.Certified, error) {
	got, err := s.client.Prove(ctx, p.ID, p.Secret)
	if err != nil {
		return nil, err
	}
	return &door.Certified{Certificate: string(ca.PEM(got.AIK)), Chain: string(ca.PEM(got.Chain...))}, nil
}
