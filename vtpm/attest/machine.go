// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/x509"
	"fmt"
	"time"
)

// CheckMachine judges the machine's layer alone, and gives the machine's name: the
// AIK's certificate leads to one of the roots, that key signed the quote, which
// answers the nonce, and the values of PCR 0-7 are those quoted. A host asks it
// before its TPM answers for a machine, so that it vouches for no quote that every
// verifier would refuse.
//
// Errors are ErrNonce, ErrFormat for a layer that is not of the documented form, and
// ErrNotHeld with the claim that failed and why. Revocation lists, and the event log
// beyond its size, are not looked at: those are for the verifier, and so is whether
// the AIK was proven beside the EK of a slot.
func CheckMachine(m *Machine, nonce []byte, roots *x509.CertPool, now time.Time) (vm string, err error) {
	if err := CheckNonce(nonce); err != nil {
		return "", err
	}
	if err := m.check(); err != nil {
		return "", err
	}
	j := (&Verifier{Roots: roots, Now: now}).begin(&Evidence{VM: *m}, nonce)
	j.machineChain()
	j.machine()
	if j.res.settle(); !j.res.OK {
		return "", fmt.Errorf("%w: %s", ErrNotHeld, j.res.why())
	}
	return j.aikVM, nil
}
