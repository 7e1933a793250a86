// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/internal/durable"
	"hwvtpm/vtpm/aik"
)

// Door is a way to the host's door: door.Client and doorhttp.Client are.
type Door interface {
	Call(ctx context.Context, op string, body, result any) error
}

// Attester works with one TPM and one folder.
type Attester struct {
	tpm transport.TPM
	dir string
	key *aik.Host
}

// Open makes an attestation key, or opens the one that is in the folder, which is
// made if need be (0700). The transport must be fit for use from any goroutine, as
// package tpmlink's is, and stays the caller's. Errors: those of aik.Open, among them
// aik.ErrOtherTPM for a folder that came from elsewhere.
func Open(tpm transport.TPM, dir string) (*Attester, error) {
	key, err := aik.Open(tpm, dir, aik.Options{})
	if err != nil {
		return nil, err
	}
	return &Attester{tpm, dir, key}, nil
}

// Close makes further calls fail. It is idempotent.
func (a *Attester) Close() error { return a.key.Close() }

// Public is the AIK's public area, a TPM2B_PUBLIC.
func (a *Attester) Public() []byte { return a.key.AKPublic() }

// EK is the endorsement key, by its certificate. Who issued that is for the authority
// to check.
type EK struct {
	Certificate *x509.Certificate
	Chain       [][]byte // DER: issuers that NV has with it
	VM          string   // the machine that the certificate names, or empty
}

// EK reads the endorsement key's certificate. Errors: aik.ErrNoCertificate.
func (a *Attester) EK() (*EK, error) {
	der, chain, err := a.key.EKCertificate()
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("attester: EK certificate: %w", err)
	}
	return &EK{cert, chain, machineOf(cert)}, nil
}

// urnVM is how certificates name machines.
const urnVM = "urn:hwvtpm:vm:"

// machineOf gives the machine that a certificate of ours names.
func machineOf(cert *x509.Certificate) string {
	for _, u := range cert.URIs {
		if vm, ok := strings.CutPrefix(u.String(), urnVM); ok {
			return vm
		}
	}
	return ""
}

// The files that are ours in the folder; aik has others.
const (
	certificateFile = "aik.pem" // certificate of the AIK, then its issuers
	ekFile          = "ek.pem"  // aik's: the EK's certificate, where NV has none
)

// certificate reads what certifies the AIK, PEM. Errors: ErrNotEnrolled.
func (a *Attester) certificate() (string, error) {
	text, err := os.ReadFile(filepath.Join(a.dir, certificateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: there is no %s", ErrNotEnrolled, filepath.Join(a.dir, certificateFile))
	} else if err != nil {
		return "", fmt.Errorf("attester: %w", err)
	}
	return string(text), nil
}

// keep replaces a file as a whole, and makes that last.
func (a *Attester) keep(name, text string) error {
	if err := durable.Replace(filepath.Join(a.dir, name), []byte(text), 0o600); err != nil {
		return fmt.Errorf("attester: keep %s: %w", name, err)
	}
	return nil
}
