// SPDX-License-Identifier: Apache-2.0

package hostpcr

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Causes; test for them with errors.Is.
var (
	// ErrTPM: the host's TPM does not answer, or not what it has to.
	ErrTPM = errors.New("host TPM")
	// ErrQuote: the quote does not prove the values that were read.
	ErrQuote = errors.New("quote does not prove the PCRs")
	// ErrLog: the event log is not there, or does not lead to the PCRs.
	ErrLog = errors.New("event log does not explain the PCRs")
	// ErrWeak: there are values in the SHA-1 bank only, and that is not enough.
	ErrWeak = errors.New("only the SHA-1 bank can be mapped")
	// ErrClosed: the Host was closed.
	ErrClosed = errors.New("host PCRs: closed")
)

// Limits of nonces and logs, in bytes.
const (
	MinNonce = 16
	MaxNonce = 64
	MaxLog   = 1 << 20 // firmware logs have 5 to 100 KiB

	maxBatch = 256
)

// AK is the key of the host's TPM that quotes. It has to be restricted, and to be
// known to whoever judges quotes: see package control.
type AK struct {
	Handle tpm2.TPMHandle
	Name   tpm2.TPM2BName
	Auth   tpm2.Session // nil: an empty password

	// Public is its public key, *rsa.PublicKey or *ecdsa.PublicKey. Each quote is
	// checked with it.
	Public crypto.PublicKey
}

// Config is what a Host needs.
type Config struct {
	// TPM is the host's TPM, such as a linuxtpm of /dev/tpmrm0. No other calls may
	// be made on it meanwhile, unless it allows that.
	TPM transport.TPM

	AK AK

	// Turn, if there is one, takes the place of TPM and of what AK has beside its
	// public key, for a TPM that others use as well and a key that is not always
	// loaded. It calls f with both for f alone, once, and gives its error.
	Turn func(f func(transport.TPM, AK) error) error

	// Log gives the firmware's event log: see FileLog. nil: there is none, and
	// nothing can be mapped.
	Log func() ([]byte, error)

	// Share lets callers that ask at once share a quote: see Quote.Leaves. Without
	// it each gets a quote of its own, in turn, with its nonce as qualifying data.
	Share bool

	// AllowSHA1 maps a host's SHA-1 bank though it has no better one that can be
	// mapped. Collisions of SHA-1 can be made.
	AllowSHA1 bool
}

// Validate reports the first thing that is missing.
func (c *Config) Validate() error {
	if c.TPM == nil && c.Turn == nil {
		return errors.New("host PCRs: no TPM")
	}
	if c.AK.Public == nil || c.Turn == nil && (c.AK.Handle == 0 || len(c.AK.Name.Buffer) == 0) {
		return errors.New("host PCRs: no key to quote with")
	}
	return nil
}

// DefaultLog is where Linux shows the event log of the first TPM.
const DefaultLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

// FileLog gives the event log in a file, of at most MaxLog bytes.
func FileLog(path string) func() ([]byte, error) {
	return func() ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, MaxLog+1))
		if err == nil && len(b) > MaxLog {
			err = fmt.Errorf("event log %s has more than %d bytes", path, MaxLog)
		}
		return b, err
	}
}

// Host is a host's TPM. All methods may be called from any goroutine.
type Host struct {
	cfg  Config
	turn sync.Mutex // held while the TPM is asked

	mu     sync.Mutex // guards what follows
	next   *batch     // takes callers until its turn comes
	recent *Reading   // the newest
	closed bool
	wg     sync.WaitGroup // of batches
}

// New gives a Host. The TPM is not asked yet.
func New(cfg Config) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Turn == nil {
		if cfg.AK.Auth == nil {
			cfg.AK.Auth = tpm2.PasswordAuth(nil)
		}
		cfg.Turn = func(f func(transport.TPM, AK) error) error { return f(cfg.TPM, cfg.AK) }
	}
	return &Host{cfg: cfg}, nil
}

// batch is callers that get the same quote.
type batch struct {
	nonces  [][]byte
	callers int // that still wait; guarded by Host.mu
	shared  bool
	done    chan struct{} // closed when what follows is there
	reading *Reading
	err     error
}

// Read reads and quotes the PCRs for a nonce of MinNonce to MaxNonce bytes. The
// quote is begun after the call. The end of ctx ends the wait, not what the TPM does;
// a quote that nobody waits for any more is not begun.
//
// Without Share the AK signs the nonce as it is. Where a quote by the same key can
// mean something else, let nobody choose the nonce: derive it, with a label.
func (h *Host) Read(ctx context.Context, nonce []byte) (*Reading, error) {
	return h.read(ctx, nonce, h.cfg.Share)
}

// ReadAlone is Read with a quote that is not shared, whatever the Config says: its
// qualifying data is the nonce.
func (h *Host) ReadAlone(ctx context.Context, nonce []byte) (*Reading, error) {
	return h.read(ctx, nonce, false)
}

func (h *Host) read(ctx context.Context, nonce []byte, share bool) (*Reading, error) {
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return nil, fmt.Errorf("host PCRs: nonce of %d bytes, want %d to %d", len(nonce), MinNonce, MaxNonce)
	}
	b, err := h.join(nonce, share)
	if err != nil {
		return nil, err
	}
	select {
	case <-b.done:
		return b.reading, b.err
	case <-ctx.Done():
		h.mu.Lock()
		b.callers--
		h.mu.Unlock()
		return nil, fmt.Errorf("host PCRs: %w", ctx.Err())
	}
}

// join puts a nonce into the batch that waits for its turn, and makes one if there
// is none, or it is full, or this caller shares with nobody.
func (h *Host) join(nonce []byte, share bool) (*batch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	b := h.next
	if !share || b == nil || len(b.nonces) == maxBatch {
		b = &batch{shared: share, done: make(chan struct{})}
		if share {
			h.next = b
		}
		h.wg.Go(func() { h.serve(b) })
	}
	b.callers++
	b.nonces = append(b.nonces, append([]byte(nil), nonce...))
	return b, nil
}

func (h *Host) serve(b *batch) {
	defer close(b.done)
	h.turn.Lock()
	defer h.turn.Unlock()
	if b.err = h.begin(b); b.err != nil {
		return
	}
	b.reading, b.err = h.take(b)
	if b.err != nil {
		b.err = fmt.Errorf("host PCRs: %w", b.err)
		return
	}
	h.mu.Lock()
	h.recent = b.reading
	h.mu.Unlock()
}

// begin closes a batch, whose turn has come, to further callers. An error is that the
// TPM need not be asked: callers that ask and go would keep the others waiting for it.
func (h *Host) begin(b *batch) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == b {
		h.next = nil // whoever comes now comes after the beginning
	}
	switch {
	case h.closed:
		return ErrClosed
	case b.callers == 0:
		return errLeft
	}
	return nil
}

// errLeft is told nobody.
var errLeft = errors.New("host PCRs: nobody waits any more")

// Recent gives the newest reading if it was begun no longer than age ago, and a new
// one, for a nonce of its own, otherwise. It is for mapping; whoever has to be
// convinced wants its own nonce, and calls Read.
func (h *Host) Recent(ctx context.Context, age time.Duration) (*Reading, error) {
	h.mu.Lock()
	r := h.recent
	h.mu.Unlock()
	if r != nil && time.Since(r.Begun) <= age {
		return r, nil
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	return h.Read(ctx, nonce)
}

// Close makes further calls fail, and those that wait for their turn, and waits for what
// the TPM does. It is idempotent.
// The TPM stays the caller's.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.wg.Wait()
	return nil
}
