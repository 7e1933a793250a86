// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/vtpm/tpmlink"
)

// KeyType is the algorithm of an attestation key.
type KeyType int

// The key types. Both sign with SHA-256.
const (
	ECCP256 KeyType = iota // ECDSA on P-256
	RSA2048                // RSASSA, PKCS #1 v1.5
)

// Options are choices for Open. The zero value is fine for most hosts.
type Options struct {
	// Key is the type of a key that is made. One that the folder has is taken as it is.
	Key KeyType

	// OwnerAuth and EndorsementAuth are the authorization values of the two
	// hierarchies, mostly empty. They may not have zero bytes.
	OwnerAuth, EndorsementAuth []byte
}

// Format implements fmt.Formatter, so that no verb shows the authorization values.
func (o Options) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "options of key type %d", o.Key) }

func (o *Options) validate() error {
	if o.Key != ECCP256 && o.Key != RSA2048 {
		return fmt.Errorf("no such key type: %d", o.Key)
	}
	// go-tpm (v0.9.8) computes with what is before the first one.
	if bytes.IndexByte(o.OwnerAuth, 0) >= 0 || bytes.IndexByte(o.EndorsementAuth, 0) >= 0 {
		return errors.New("an authorization value with a zero byte in it is not supported: choose another")
	}
	return nil
}

// OpenTPM opens a TPM by its address, "device:/dev/tpmrm0" or "swtpm:PATH": see
// package tpmlink.
func OpenTPM(address string) (transport.TPMCloser, error) {
	l, err := tpmlink.Open(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTPM, err)
	}
	return l, nil
}

// Host is a system's TPM with the system's attestation key: a host's, or, inside of a
// virtual machine, the machine's. All methods may be called from any goroutine;
// operations take turns, in no order.
type Host struct {
	dir  string
	opts *Options // a pointer, so that nothing prints what is in it
	key  *key

	closed chan struct{}
	once   sync.Once

	turn  chan struct{} // has one element while nobody has the turn, which guards what follows
	tpm   *lane
	ready *tpm2.TPMSContext // the loaded key, saved; nil: load it from its blobs
	limit int               // bytes that the TPM hashes at once
}

// Open loads the attestation key from the folder dir, which is made if it is not
// there, or makes a key and keeps it there, in a file of mode 0600. The transport
// stays the caller's, and must be fit for any goroutine if something else uses it too,
// as package tpmlink's is.
//
// Errors are ErrOtherTPM if the TPM is not the one that made the key: the host has
// to enrol again then, with a new key, after the file was removed.
func Open(tpm transport.TPM, dir string, opts Options) (*Host, error) {
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("aik: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("aik: %w", err)
	}
	h := &Host{dir: dir, opts: &opts, closed: make(chan struct{}), turn: make(chan struct{}, 1), tpm: &lane{tpm: tpm}}
	h.turn <- struct{}{}
	err := h.do(context.Background(), func(t *lane) (err error) {
		if h.limit, err = inputBuffer(t); err != nil {
			return err
		}
		h.key, err = readKey(dir)
		if errors.Is(err, os.ErrNotExist) {
			h.key, err = h.makeKey(t)
		}
		if err != nil {
			return err
		}
		_, err = h.load(t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// do runs an operation that has the TPM to itself, and leaves nothing loaded. The
// end of ctx ends the wait for the turn, not what the TPM does.
func (h *Host) do(ctx context.Context, f func(t *lane) error) error {
	select {
	case <-h.turn:
	case <-h.closed:
		return fmt.Errorf("aik: %w", ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("aik: %w", ctx.Err())
	}
	defer func() { h.turn <- struct{}{} }()
	select {
	case <-h.closed: // both were ready
		return fmt.Errorf("aik: %w", ErrClosed)
	default:
	}
	defer h.tpm.leave()
	h.tpm.enter()
	if err := f(h.tpm); err != nil {
		return fmt.Errorf("aik: %w", err)
	}
	return nil
}

// AKPublic is the public area of the key, a TPM2B_PUBLIC.
func (h *Host) AKPublic() []byte { return tpm2.Marshal(h.key.public) }

// Public is the key's public half, *ecdsa.PublicKey or *rsa.PublicKey.
func (h *Host) Public() crypto.PublicKey { return h.key.crypto }

// Close makes further calls fail with ErrClosed, and waits for the operation under
// way. It is idempotent.
func (h *Host) Close() error {
	h.once.Do(func() { close(h.closed) })
	<-h.turn
	h.turn <- struct{}{}
	return nil
}
