// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/hostpcr"
)

// openSwtpm gives a host with a TPM as it is sold, by its address.
func openSwtpm(t testing.TB, sw *controltest.Swtpm, opts Options) *Host {
	t.Helper()
	h := must(Open(linkTo(t, sw), t.TempDir(), opts))(t)
	t.Cleanup(func() { h.Close() })
	return h
}

func linkTo(t testing.TB, sw *controltest.Swtpm) transport.TPM {
	t.Helper()
	link := must(OpenTPM("swtpm:" + sw.Socket))(t)
	t.Cleanup(func() { link.Close() })
	return link
}

// TestHardware: the TPM of another maker, with the certificates of that maker: the
// host enrols and certifies its card, and quotes.
func TestHardware(t *testing.T) {
	for name, alg := range bothTypes {
		t.Run(name, func(t *testing.T) {
			sw := controltest.StartSwtpm(t)
			h := openSwtpm(t, sw, Options{Key: alg})
			s := newService(t, sw.Manufacturer)
			host := s.enrol(t, h).Certificate
			card := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
			template := must(ca.CoprocessorAIK("0011223344556677", ca.Validity{Now: time.Now(), Life: time.Hour}))(t)
			cert := must((&ca.Issuer{Certificate: host, Signer: h.Signer()}).Issue(template, card.Public()))(t)
			others := []*x509.Certificate{host, s.authority.Attestation.Certificate}
			if chain, err := ca.Verify(cert, others, s.authority.Roots(), time.Now()); err != nil || len(chain) != 4 {
				t.Errorf("chain of %d certificates, %v", len(chain), err)
			}
			pcrs := must(h.HostPCRs(hostpcr.Config{}))(t)
			defer pcrs.Close()
			reading := must(pcrs.Read(t.Context(), make([]byte, 32)))(t)
			if reading.Values.Banks()&abi.BankSHA256 == 0 {
				t.Errorf("values of banks %v", reading.Values.Banks())
			}
			if n := loaded(t, sw); n != 0 {
				t.Errorf("%d objects and sessions are left in the TPM", n)
			}
		})
	}
}

// TestNeighbours: several programs share a TPM that serves one connection at a time
// and has room for three objects.
func TestNeighbours(t *testing.T) {
	sw := controltest.StartSwtpm(t)
	var wg sync.WaitGroup
	for range 3 {
		h := openSwtpm(t, sw, Options{})
		wg.Go(func() {
			for range 50 {
				if _, err := h.Signer().(crypto.MessageSigner).SignMessage(nil, make([]byte, 2000), crypto.SHA256); err != nil {
					t.Error(err)
				}
				if _, err := h.Quote(t.Context(), nil, Selection([]uint{0, 7}, hashAlg)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := loaded(t, sw); n != 0 {
		t.Errorf("%d objects and sessions are left in the TPM", n)
	}
}
