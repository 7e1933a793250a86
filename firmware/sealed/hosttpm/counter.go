// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/firmware/sealed"
)

// Index is the handle of an NV index.
type Index = tpm2.TPMHandle

// DefaultIndex is an NV index of the range that is the owner's to give away
// (TCG Registry of Reserved TPM 2.0 Handles and Localities, 2.2.2).
const DefaultIndex Index = 0x01801a75

// attributes of the counter.
//
//   - AuthWrite and not OwnerWrite: only who knows the authorization value, the
//     card, increments. The owner can still remove the index, but not set it
//     back: a counter that is defined again starts above all that ever was.
//   - AuthRead: the card's reads are authenticated with the same value, so that
//     the bus cannot show an old number. OwnerRead: an operator may look.
//   - NoDA: it does not take part in the dictionary attack lockout.
//   - not Orderly: such a counter is cheaper, but jumps when the power fails, and
//     the anchor's record would not fit it any more.
var attributes = tpm2.TPMANV{
	AuthWrite: true, AuthRead: true, OwnerRead: true, NoDA: true, NT: tpm2.TPMNTCounter,
}

// Counter is an NV counter of the host's TPM (TPM 2.0 Part 1, "NV Counter
// Index").
type Counter struct {
	tpm   *TPM
	index tpm2.TPMHandle
	auth  *sealed.Key // pointers, so that nothing prints a secret
	name  tpm2.TPM2BName
	id    sealed.CounterID
}

var _ sealed.Counter = (*Counter)(nil)

// DefineCounter makes the counter of a new card. The index must be free. auth is
// the card's own, such as Store.Secret gives it; the counter keeps it.
func DefineCounter(t TPM, index tpm2.TPMHandle, auth *sealed.Key) (*Counter, error) {
	p, err := t.primary()
	if err != nil {
		return nil, err
	}
	defer p.flush()
	session, done, err := t.session(p.secure(inbound, tpm2.Auth(t.OwnerAuth))...)
	if err != nil {
		return nil, err
	}
	defer done()
	public := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: 8}
	_, err = tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: session},
		Auth:       tpm2.TPM2BAuth{Buffer: authValue(auth)},
		PublicInfo: tpm2.New2B(public),
	}.Execute(t.Transport)
	if err != nil {
		return nil, fmt.Errorf("host TPM: define counter %#x: %w", index, err)
	}
	name, err := tpm2.NVName(&public)
	if err != nil {
		return nil, fmt.Errorf("host TPM: counter %#x: %w", index, err)
	}
	c := &Counter{tpm: &t, index: index, auth: auth, name: *name}
	if err := c.Increment(); err != nil { // gives it its first value
		return nil, err
	}
	return OpenCounter(t, index, auth)
}

// authValue is the authorization value that follows from a card's secret: 128
// bits of it as 32 hexadecimal digits, as many bytes as an index with a SHA-256
// name takes. It has no zero byte, because go-tpm (v0.9.8) computes with what is
// before a value's first one, where a TPM removes trailing ones only (TCG Part 1,
// "Authorization Values"): one random value in nine would be refused for ever.
func authValue(secret *sealed.Key) []byte {
	return hex.AppendEncode(nil, secret.Bytes()[:16])
}

// OpenCounter finds a counter that DefineCounter made.
func OpenCounter(t TPM, index tpm2.TPMHandle, auth *sealed.Key) (*Counter, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t.Transport)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("host TPM has no counter %#x: another TPM, or the counter was removed: %w: %w", index, err, sealed.ErrCounter)
	}
	if err != nil {
		return nil, fmt.Errorf("host TPM: look for counter %#x: %w", index, err)
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("host TPM: counter %#x: %w", index, err)
	}
	want := attributes
	want.Written = true
	if public.NVIndex != index || public.Attributes != want || len(public.AuthPolicy.Buffer) != 0 {
		return nil, fmt.Errorf("NV index %#x of the host TPM is not a card's counter: %w", index, sealed.ErrCounter)
	}
	name, err := tpm2.NVName(public)
	if err != nil {
		return nil, fmt.Errorf("host TPM: counter %#x: %w", index, err)
	}
	p, err := t.primary()
	if err != nil {
		return nil, err
	}
	defer p.flush()
	id := sha256.Sum256(binary.BigEndian.AppendUint32(p.name.Buffer, uint32(index)))
	return &Counter{tpm: &t, index: index, auth: auth, name: *name, id: sealed.CounterID(id[:])}, nil
}

// authorized runs a command that the card's secret authorizes, and that secret
// authenticates the answer.
func (c *Counter) authorized(what string, run func(tpm2.AuthHandle, tpm2.NamedHandle) error) error {
	session, done, err := c.tpm.session(tpm2.Auth(authValue(c.auth)))
	if err != nil {
		return err
	}
	defer done()
	err = run(tpm2.AuthHandle{Handle: c.index, Name: c.name, Auth: session}, tpm2.NamedHandle{Handle: c.index, Name: c.name})
	if err != nil {
		return fmt.Errorf("host TPM: %s counter %#x: %w", what, uint32(c.index), err)
	}
	return nil
}

// ID implements sealed.Counter. The same index of the same TPM has the same one,
// until the TPM is cleared.
func (c *Counter) ID() (sealed.CounterID, error) { return c.id, nil }

// Read implements sealed.Counter.
func (c *Counter) Read() (v uint64, err error) {
	err = c.authorized("read", func(auth tpm2.AuthHandle, index tpm2.NamedHandle) error {
		rsp, err := tpm2.NVRead{AuthHandle: auth, NVIndex: index, Size: 8}.Execute(c.tpm.Transport)
		if err != nil {
			return err
		}
		if len(rsp.Data.Buffer) != 8 {
			return fmt.Errorf("%d bytes: %w", len(rsp.Data.Buffer), sealed.ErrCounter)
		}
		v = binary.BigEndian.Uint64(rsp.Data.Buffer)
		return nil
	})
	return v, err
}

// Increment implements sealed.Counter.
func (c *Counter) Increment() error {
	return c.authorized("increment", func(auth tpm2.AuthHandle, index tpm2.NamedHandle) error {
		_, err := tpm2.NVIncrement{AuthHandle: auth, NVIndex: index}.Execute(c.tpm.Transport)
		return err
	})
}

// String implements sealed.Counter.
func (c *Counter) String() string {
	return fmt.Sprintf("host TPM: NV counter %#x cannot be set back", uint32(c.index))
}
