// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	goattest "github.com/google/go-attestation/attest"
)

// peer is go-attestation at a TPM, with a key of the kind that ours is: ECDSA on
// P-256.
type peer struct {
	tpm *goattest.TPM
	bus *channel
	ek  goattest.EK
	ak  *goattest.AK
}

// openPeer has go-attestation take a target. It makes the storage key that it wants
// in the TPM, if there is none, before anything is measured.
func openPeer(t target) (*peer, error) {
	bus := &channel{target: t}
	tpm, err := goattest.OpenTPM(&goattest.OpenConfig{CommandChannel: bus})
	if err != nil {
		return nil, fmt.Errorf("bench: go-attestation: %w", err)
	}
	eks, err := tpm.EKs()
	if err == nil && len(eks) == 0 {
		err = errors.New("no endorsement key")
	}
	if err != nil {
		return nil, fmt.Errorf("bench: go-attestation: %w", err)
	}
	p := &peer{tpm: tpm, bus: bus, ek: eks[0]}
	_, _, err = p.once()
	return p, err
}

// once enrols, and drops the key.
func (p *peer) once() (key, prove time.Duration, err error) {
	key, prove, err = p.enrol()
	return key, prove, errors.Join(err, p.close())
}

// enrol makes a key and has it proven to be in the TPM of the endorsement key. The
// challenge is made here, as there is no server; it is part of the time.
func (p *peer) enrol() (key, prove time.Duration, err error) {
	begin := time.Now()
	p.ak, err = p.tpm.NewAK(&goattest.AKConfig{Algorithm: goattest.ECDSA})
	key = time.Since(begin)
	if err != nil {
		return 0, 0, fmt.Errorf("bench: go-attestation: %w", err)
	}
	activation := goattest.ActivationParameters{EK: p.ek.Public, AK: p.ak.AttestationParameters()}
	want, challenge, err := activation.Generate()
	if err != nil {
		return 0, 0, fmt.Errorf("bench: go-attestation: %w", err)
	}
	got, err := p.ak.ActivateCredentialWithEK(p.tpm, *challenge, p.ek)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("another secret")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("bench: go-attestation: %w", err)
	}
	return key, time.Since(begin) - key, nil
}

// quote reads the values of one bank and has them quoted.
func (p *peer) quote(nonce []byte) error {
	if _, err := p.tpm.PCRs(goattest.HashSHA256); err != nil {
		return err
	}
	_, err := p.ak.Quote(p.tpm, nonce, goattest.HashSHA256)
	return err
}

// platform gives a whole platform's evidence.
func (p *peer) platform(nonce, log []byte) error {
	_, err := p.tpm.AttestPlatform(p.ak, nonce, &goattest.PlatformAttestConfig{EventLog: log})
	return err
}

// close drops the key. The TPM stays its owner's.
func (p *peer) close() error {
	if p.ak == nil {
		return nil
	}
	err := p.ak.Close(p.tpm)
	p.ak = nil
	return err
}

// channel is a target as go-attestation has its TPMs: a response for each Write,
// whole by one Read.
type channel struct {
	target target
	resp   []byte
	count  int // commands so far
}

func (c *channel) Write(command []byte) (int, error) {
	c.count++
	resp, err := c.target.exchange(command)
	if err != nil {
		return 0, err
	}
	c.resp = resp
	return len(command), nil
}

func (c *channel) Read(p []byte) (int, error) { return copy(p, c.resp), nil }

func (c *channel) Close() error                    { return nil }
func (c *channel) MeasurementLog() ([]byte, error) { return nil, nil }
