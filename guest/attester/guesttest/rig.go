// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"crypto/x509"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
)

// VM is the machine's name.
const VM = "vm-1"

var model = ca.Model{Manufacturer: "id:48575654", Model: "hwvtpm", Version: "id:00000001", Family: "2.0", Revision: 164}

// Rig is a machine with a vTPM, and its host.
type Rig struct {
	TPM       *controltest.TPM // past the bus
	Bus       *Bus
	Authority *ca.Authority
	EK        *x509.Certificate // of the P-256 key; it is not in NV

	// Spoil changes what the host answers, if it is there.
	Spoil func(op string, answer any)

	t     testing.TB
	ekKey tpm2.TPMTPublic

	mu       sync.Mutex // guards what follows
	requests []string
	secrets  map[string][]byte
	aks      map[string]*tpm2.TPMTPublic
}

// Bus is the machine's way to its TPM, for several goroutines.
type Bus struct {
	// Before is called with each command, if it is there.
	Before func(cmd tpm2.TPMCC)

	mu  sync.Mutex // held while the TPM works
	tpm transport.TPM
}

// Send implements transport.TPM.
func (b *Bus) Send(cmd []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Before != nil {
		b.Before(tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:])))
	}
	return b.tpm.Send(cmd)
}

func (r *Rig) fatal(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// New starts a machine, whose EK's certificate is not yet in NV.
func New(t testing.TB) *Rig {
	t.Helper()
	keys := t.TempDir()
	r := &Rig{t: t, TPM: controltest.StartSim(t), secrets: map[string][]byte{}, aks: map[string]*tpm2.TPMTPublic{}}
	r.Bus = &Bus{tpm: r.TPM}
	var err error
	r.Authority, err = ca.Create(keys, "test", ca.FileKeys{Dir: keys}, time.Now().Add(-time.Hour))
	r.fatal(err)
	ek := r.TPM.EK(tpm2.ECCEKTemplate)
	r.ekKey = ek.Public
	r.EK = r.Certify(r.Authority.Attestation)
	r.TPM.Flush(ek)
	return r
}

// Certify makes an EK certificate of another issuer.
func (r *Rig) Certify(issuer *ca.Issuer) *x509.Certificate {
	r.t.Helper()
	key, err := tpm2.Pub(r.ekKey)
	r.fatal(err)
	template, err := ca.VTPMEK(VM, model, key, life())
	r.fatal(err)
	cert, err := issuer.Issue(template, key)
	r.fatal(err)
	return cert
}

func life() ca.Validity { return ca.Validity{Now: time.Now(), Life: 24 * time.Hour} }
