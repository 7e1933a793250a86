// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/vtpm/hostpcr"
)

// TPM is the host's TPM with its attestation key: an *aik.Host. Its methods may be
// called from any goroutine.
type TPM interface {
	// EKCertificate gives what the TPM's maker has put into it.
	EKCertificate() (der []byte, chain [][]byte, err error)
	AKPublic() []byte // TPM2B_PUBLIC
	Public() crypto.PublicKey
	// Activate opens a credential: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
	Activate(blob, secret []byte) ([]byte, error)
	// Signer signs certificates with the attestation key.
	Signer() crypto.Signer
}

// PCRs are the PCRs of the host's TPM, quoted by its attestation key: a
// *hostpcr.Host.
type PCRs interface {
	// ReadAlone is for evidence, whose verifiers want their nonce and no others.
	ReadAlone(ctx context.Context, nonce []byte) (*hostpcr.Reading, error)
	// Recent is for mapping. It does best if who asks at once shares a quote.
	Recent(ctx context.Context, age time.Duration) (*hostpcr.Reading, error)
}

// Card is a connection to a card, for its administrator: an *admin.Client with its
// connection. Its methods may be called from any goroutine.
type Card interface {
	CardKey(ctx context.Context) (admin.CardKey, error)
	SetCertificates(ctx context.Context, chain [][]byte) error
	HealthStatementFor(ctx context.Context, nonce [32]byte) (admin.Signed, abi.CardHealth, error)

	List(ctx context.Context) ([]abi.SlotInfo, error)
	Show(ctx context.Context, name string) (abi.SlotInfo, error)
	Certify(ctx context.Context, s abi.SlotInfo) error
	EKCertificate(ctx context.Context, s abi.SlotInfo, handle uint32) (abi.EKCertificate, error)
	EKStatement(ctx context.Context, s abi.SlotInfo) (admin.Signed, abi.EKBody, error)

	Close() error
}

// Authority is the cloud's authority. An error is ErrRefused if the authority has
// understood, and does not want to, ErrBusy if it wants to be asked less, and ErrRevoked
// if it is the host's certificate that it does not take.
type Authority interface {
	Enrol(ctx context.Context, r *Enrolment) (*Challenge, error)
	Prove(ctx context.Context, p *Proof) (*Certified, error)
	// CRL gives the newest revocation list of the authority that certifies
	// attestation keys.
	CRL(ctx context.Context) (*x509.RevocationList, error)
}

// Kinds of enrolment.
const (
	KindHost = "host"
	KindVTPM = "vtpm"
)

// Enrolment asks for the certificate of an attestation key.
type Enrolment struct {
	Kind, Name    string
	EKCertificate []byte
	EKChain       [][]byte
	AKPublic      []byte // TPM2B_PUBLIC
	CSR           []byte // of the TLS key of a host

	Credentials
}

// Credentials are what the host shows of itself. The zero value is nothing.
type Credentials struct {
	Token string
	TLS   *tls.Certificate
}

// Challenge is what only the TPM with the endorsement key can meet.
type Challenge struct {
	ID           string
	Blob, Secret []byte // TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET
}

// Proof is the answer to a challenge.
type Proof struct {
	ID     string
	Secret []byte

	Credentials
}

// Certified is what an enrolment gives, as PEM. Chain has the issuers of both.
type Certified struct {
	Certificate, TLS, Chain string
}
