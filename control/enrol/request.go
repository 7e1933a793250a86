// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/go-attestation/attest"

	"hwvtpm/control/ca"
	"hwvtpm/control/store"
)

// Request asks for the certificate of an attestation key. All of it is the
// caller's word.
type Request struct {
	Kind          string    `json:"kind"`           // store.KindHost or store.KindVTPM
	Name          string    `json:"name"`           // of the host or machine
	EKCertificate []byte    `json:"ek_certificate"` // DER, or as NV has it
	EKChain       [][]byte  `json:"ek_chain"`       // DER, any order, without the root
	AKPublic      []byte    `json:"ak_public"`      // TPM2B_PUBLIC or TPMT_PUBLIC
	Creation      *Creation `json:"creation"`       // optional; checked if there
	CSR           []byte    `json:"csr"`            // hosts only, optional: PKCS#10 of their TLS key
}

// Creation proves besides that the TPM itself made the key, by a signature of the
// key over its own creation: what go-attestation's AttestationParameters have.
type Creation struct {
	Data        []byte `json:"data"`        // TPMS_CREATION_DATA
	Attestation []byte `json:"attestation"` // TPMS_ATTEST
	Signature   []byte `json:"signature"`   // TPMT_SIGNATURE
}

// Caller is who asks, as far as the connection proves it.
type Caller struct {
	Host  string // whose TLS key it has, or empty
	Token string // it bears, or empty
	Addr  string // for the audit log
}

// Identity is whom limits hold for: the host, or else the address. Of an address of IPv6
// it is the network of 64 bits, since who has one address there has all of them.
func (c Caller) Identity() string {
	if c.Host != "" {
		return "host " + c.Host
	}
	if a, err := netip.ParseAddr(c.Addr); err == nil && a.Is6() && !a.Is4In6() {
		if network, err := a.WithZone("").Prefix(64); err == nil {
			return "address " + network.String()
		}
	}
	return "address " + c.Addr
}

// claim is a request that was read and verified, but for the proof and for policy.
type claim struct {
	store.Challenge
	ek *EK
	ak *AK
}

// read verifies all of a request that it can verify without the TPM.
func (s *Service) read(r *Request, caller Caller, now time.Time) (*claim, error) {
	if !ca.ValidName(r.Name) {
		return nil, fmt.Errorf("%w: %w: %.80q", ErrRequest, ca.ErrName, r.Name)
	}
	cert, others, err := parseCertificates(r.EKCertificate, r.EKChain)
	if err != nil {
		return nil, err
	}
	c := &claim{}
	switch r.Kind {
	case store.KindHost:
		c.ek, err = hostEK(cert, others, s.cfg.Manufacturers, now)
	case store.KindVTPM:
		c.ek, err = vtpmEK(cert, others, s.cfg.Authority, now)
		if err == nil && c.ek.VM != r.Name {
			err = fmt.Errorf("%w: the EK certificate is of machine %s, not %s", ErrRequest, c.ek.VM, r.Name)
		}
	default:
		err = fmt.Errorf("%w: no kind is called %.80q", ErrRequest, r.Kind)
	}
	if err != nil {
		return nil, err
	}
	if c.ak, err = ParseAK(r.AKPublic); err != nil {
		return nil, err
	}
	if err := checkCreation(r.Creation, c); err != nil {
		return nil, err
	}
	c.Challenge = store.Challenge{
		Kind: r.Kind, Name: r.Name, EK: c.ek.Hash, AK: c.ak.NameText(), AKKey: c.ak.SPKI,
		Host: c.ek.Host, HostSerial: c.ek.HostSerial, Coprocessor: c.ek.Coprocessor, CardKey: c.ek.CardKey,
		Caller: caller.Host, From: caller.Identity(),
	}
	if caller.Token != "" {
		c.Token = TokenHash(caller.Token)
	}
	c.TLSKey, err = readCSR(r)
	return c, err
}

func checkCreation(p *Creation, c *claim) error {
	if p == nil {
		return nil
	}
	params := attest.ActivationParameters{EK: c.ek.Key, AK: attest.AttestationParameters{
		Public: c.ak.Public, CreateData: p.Data, CreateAttestation: p.Attestation, CreateSignature: p.Signature,
	}}
	if err := params.CheckAKParameters(); err != nil {
		return fmt.Errorf("%w: creation of the AK: %w", ErrRequest, err)
	}
	return nil
}

// readCSR takes nothing from a certificate request but its key, which it proves to
// have.
func readCSR(r *Request) ([]byte, error) {
	if len(r.CSR) == 0 {
		return nil, nil
	}
	if r.Kind != store.KindHost || len(r.CSR) > maxCertificate {
		return nil, fmt.Errorf("%w: a TLS key for a %s, of %d bytes", ErrRequest, r.Kind, len(r.CSR))
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err == nil && !fitTLS(csr.PublicKey) { // first: a large key costs minutes
		err = errors.New("it is of an unfit kind")
	}
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: TLS key: %w", ErrRequest, err)
	}
	return csr.RawSubjectPublicKeyInfo, nil
}

// fitTLS says whether a host may have such a key for TLS.
func fitTLS(key any) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return curves[key.Curve] != 0
	case ed25519.PublicKey:
		return true
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		return bits >= 2048 && bits <= 4096
	}
	return false
}
