// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// deadTPM is a TPM that can do nothing.
type deadTPM struct{}

var errDead = errors.New("the TPM is dead")

func (deadTPM) Manufacture() error          { return errDead }
func (deadTPM) Load(perm, vol []byte) error { return errDead }
func (deadTPM) Stop()                       {}
func (deadTPM) Process(uint8, []byte, []byte) (int, bool, error) {
	return 0, false, errDead
}
func (deadTPM) Hash([]byte) error                { return errDead }
func (deadTPM) Stored(dst []byte) []byte         { return dst }
func (deadTPM) Volatile(dst []byte) (int, error) { return 0, errDead }

// FuzzSetup: whatever a worker is told first, with whatever state and volatile
// file, it ends without a panic when the card does, and has said Ready once.
func FuzzSetup(f *testing.F) {
	key := [sealed.KeySize]byte{1}
	seals, err := sealsOf(sealed.SlotID{1}, new(key))
	if err != nil {
		f.Fatal(err)
	}
	image := appendState(nil, &durable{slotID: sealed.SlotID{1}, generation: 3, permanent: []byte("permanent")})
	blob, err := seals.Seal(nil, sealed.KindPermanent, 3, 2, image)
	if err != nil {
		f.Fatal(err)
	}
	s := wire.Setup{Slot: sealed.SlotID{1}, Key: key, BlobLen: uint32(len(blob)), Epoch: 2}
	head := appendVolatileHeader(nil, s.Slot, s.Boot)
	for _, flags := range []wire.SetupFlags{0, wire.Greeted, wire.Greeted | wire.Powered, wire.Clone, wire.Create} {
		s := s
		s.Flags, s.Source, s.SourceKey, s.Banks = flags, s.Slot, s.Key, abi.DefaultBanks
		if flags == wire.Create {
			s.BlobLen = 0
		}
		f.Add(wire.AppendSetup(nil, &s), blob, head, uint8(s.Descriptors()))
	}
	f.Add([]byte{}, []byte{}, []byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, setup, blob, volatile []byte, descriptors uint8) {
		if len(blob) > wire.MaxBlob || len(volatile) > volSize || len(setup) == 0 {
			return
		}
		tryLife(t, setup, blob, volatile, int(descriptors%6))
	})
}

// tryLife runs a worker until it has answered its first message.
func tryLife(t *testing.T, setup, blob, volatile []byte, descriptors int) {
	card, theirs, err := wire.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(card)
	shared, err := wire.CreateShared()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(shared)
	vol, err := unix.MemfdCreate("volatile", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(vol)
	if _, err := unix.Pwrite(shared, blob, wire.BlobOffset); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(vol, volatile, 0); err != nil {
		t.Fatal(err)
	}
	if len(volatile) > 0 {
		unix.Ftruncate(vol, volSize)
	}
	k := newClient(t)
	defer k.close()
	fds := []int{shared, vol, k.far[0], k.far[1], card}[:min(descriptors, 5)]
	if err := wire.Send(card, setup, fds...); err != nil {
		return // longer than a socket takes
	}
	ended := make(chan error, 1)
	go func() {
		w := &worker{fd: theirs, tpm: deadTPM{}, log: logger{w: io.Discard}, cancel: func() {}, curves: func(bool) {}, gone: func() {}}
		err := w.run()
		unix.Close(theirs)
		ended <- err
	}()
	b := make([]byte, wire.MaxMessage)
	n, _, err := wire.Receive(card, b)
	if err == nil {
		if _, err := wire.ParseReady(b[:n]); err != nil {
			t.Errorf("the worker said %x: %v", b[:n], err)
		}
	}
	unix.Shutdown(card, unix.SHUT_RDWR)
	<-ended
}
