// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// script is a TPM that answers every command with the next of its codes, and with
// the last one from then on.
type script []tpm2.TPMRC

func (s *script) Send([]byte) ([]byte, error) {
	rc := (*s)[0]
	if len(*s) > 1 {
		*s = (*s)[1:]
	}
	return failure(rc), nil
}

// TestAgain: what the TPM wants again it gets again, though not for ever.
func TestAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		codes script
		want  error
	}{
		"once":       {script{tpm2.TPMRCRetry, 0}, nil},
		"self-tests": {script{tpm2.TPMRCTesting, tpm2.TPMRCTesting, tpm2.TPMRCYielded, tpm2.TPMRCNVRate, 0}, nil},
		"never":      {script{tpm2.TPMRCRetry}, tpm2.TPMRCRetry},
		"failure":    {script{tpm2.TPMRCFailure, 0}, tpm2.TPMRCFailure},
		"lockout":    {script{tpm2.TPMRCLockout, 0}, tpm2.TPMRCLockout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				_, err := tpm2.FlushContext{FlushHandle: tpm2.TPMHandle(0x80000000)}.Execute(&lane{tpm: &tc.codes})
				if !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
				if d := time.Since(begun); d > 10*time.Second {
					t.Errorf("waited for %v", d)
				}
			})
		})
	}
}

// unreachable is a TPM behind a connection that broke.
type unreachable int

func (u *unreachable) Send([]byte) ([]byte, error) {
	*u++
	return nil, errBus
}

// TestGivesUp: what cannot be flushed is tried again before the next operation, and
// then no more: a resource manager takes no handle that it does not know.
func TestGivesUp(t *testing.T) {
	tpm := unreachable(0)
	l := &lane{tpm: &tpm, loaded: []tpm2.TPMHandle{0x80000000}}
	for op := range 3 {
		l.enter()
		l.leave()
		if tpm != 1 {
			t.Errorf("operation %d: flushed %d times", op, tpm)
		}
	}
}

// raw is a TPM with one answer to everything.
type raw []byte

func (r raw) Send([]byte) ([]byte, error) { return r, nil }

// FuzzAnswers: nothing that a TPM says makes more of it than an error.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{})
	f.Add(failure(0))
	f.Add(failure(tpm2.TPMRCHandle))
	f.Add([]byte("\x80\x01\x00\x00\x00\x1b\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x01\x00\x00\x01\x0d\x00\x00\x04\x00"))
	f.Add([]byte("\x80\x02\x00\x00\x00\x13\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if len(answer) >= headerSize && answer[6] == 0 && answer[7] == 0 && answer[8] == 9 {
			t.Skip("a warning, which may be waited for")
		}
		if h, err := Open(raw(answer), t.TempDir(), Options{}); err == nil {
			t.Errorf("opened %v", h.Public())
		}
		h := &Host{dir: t.TempDir(), opts: &Options{}, closed: make(chan struct{}), turn: make(chan struct{}, 1), tpm: &lane{tpm: raw(answer)}, limit: 64}
		h.turn <- struct{}{}
		if _, _, err := h.EKCertificate(); err == nil {
			t.Error("found an EK certificate")
		}
		h.hash(h.tpm, make([]byte, 100))
		h.readNV(h.tpm, firstIndex)
		h.endorsementKey(h.tpm, nil)
		h.tpm.flush()
	})
}
