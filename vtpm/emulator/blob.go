// SPDX-License-Identifier: Apache-2.0

package emulator

import "context"

// BlobKind is a part of a TPM's state (tpm_ioctl.h, "TPM state blob types").
type BlobKind uint32

// The parts that QEMU moves, in this order. It also asks for a third one, which
// only a TPM 1.2 has.
const (
	BlobPermanent BlobKind = 1
	BlobVolatile  BlobKind = 2

	blobSaveState BlobKind = 3
)

// StateMover is what a slot implements whose state may travel in QEMU's
// migration stream and snapshots. Its methods run one at a time, and not while
// a method of the slot that changes its power runs. Errors go to the operator's
// log; QEMU learns only that there was one.
type StateMover interface {
	// SaveState returns the part kind of the running TPM's state, sealed: a
	// blob crosses networks and disks, and its reader is not to be trusted.
	// No TPM command runs meanwhile. Both parts are asked for without a
	// command in between, and fit together. nil without an error: there is
	// no such part.
	SaveState(ctx context.Context, kind BlobKind) ([]byte, error)

	// LoadState checks a blob and keeps it for the next PowerOn, which
	// continues from it (PowerOnResult.Resumed) if a volatile part was
	// loaded. The TPM is off. blob is not kept after the call, and comes
	// from anywhere.
	LoadState(ctx context.Context, kind BlobKind, blob []byte) error
}

// getStateBlob is GET_STATEBLOB. Whatever the flags ask for, blobs leave
// sealed. The answer always has its four words.
//
// Preconditions: admit found nothing wrong.
func (s *session) getStateBlob(body []byte) error {
	kind, offset := BlobKind(order.Uint32(body[4:])), order.Uint32(body[8:])
	res, blob := s.saveState(kind)
	blob = blob[min(int64(offset), int64(len(blob))):]
	flags := uint32(0)
	if len(blob) > 0 {
		flags = stateEncrypted
	}
	if res != resOK && res != resRetry {
		s.server.counters.refused.Add(1)
	}
	s.out = putResult(s.out, res)
	for _, word := range []uint32{flags, uint32(len(blob)), uint32(len(blob))} {
		s.out = order.AppendUint32(s.out, word)
	}
	return s.control.answer(s.out, blob)
}

func (s *session) saveState(kind BlobKind) (result, []byte) {
	switch kind {
	case BlobPermanent, BlobVolatile:
	case blobSaveState:
		// The last one that QEMU asks for: the state is on its way now.
		s.letGo()
		return resRetry, nil
	default:
		return resFail, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hash.spoil() // it is not in the state
	blob, err := s.server.mover.SaveState(context.Background(), kind)
	switch {
	case err != nil:
		s.log.Error("saving the TPM's state failed", "part", uint32(kind), "error", err)
		return resFail, nil
	case len(blob) > maxBlob:
		s.log.Error("the TPM's state is too large to move", "part", uint32(kind), "bytes", len(blob))
		return resFail, nil
	case blob == nil:
		return resRetry, nil
	}
	return resOK, blob
}

// letGo notes that the state is on its way, and lets go of the slot for whom it
// goes to.
func (s *session) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = true
	if s.server.lender == nil {
		return
	}
	if err := s.server.lender.letGo(); err != nil {
		s.log.Error("letting go of the slot failed", "error", err)
	}
}

// lockStorage is LOCK_STORAGE: a migration has failed, and the machine goes on
// here. A slot that is no lender's is held all the time.
func (s *session) lockStorage() result {
	if s.server.lender == nil {
		return resOK
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.server.lender.takeBack(context.Background()); err != nil {
		s.log.Error("the machine cannot go on here", "error", err)
		return resFail
	}
	return resOK
}

// setStateBlob is SET_STATEBLOB. Unlike other requests it is read to its end
// before it is judged, for its data may come in a second piece. Where the end
// is can't be told of one that claims more than maxBlob: it is the last one.
func (s *session) setStateBlob(body []byte) (over bool, err error) {
	if len(body) < setBlobHead {
		return false, s.reply(admit(cmdSetStateBlob, body, s.server.caps, s.running.Load()))
	}
	kind, length := BlobKind(order.Uint32(body[4:])), order.Uint32(body[8:])
	head, data := body[:setBlobHead], body[setBlobHead:]
	if length > maxBlob {
		return true, s.reply(resFail)
	}
	blob := make([]byte, length)
	n := copy(blob, data)
	if err := s.control.fill(blob[n:]); err != nil {
		return true, err
	}
	res := admit(cmdSetStateBlob, head, s.server.caps, s.running.Load())
	switch {
	case res != resOK:
	case n < len(data):
		res = resBadParameter
	default:
		res = s.loadState(kind, blob)
	}
	return false, s.reply(res)
}

func (s *session) loadState(kind BlobKind, blob []byte) result {
	if kind != BlobPermanent && kind != BlobVolatile {
		return resBadParameter
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.server.mover.LoadState(context.Background(), kind, blob); err != nil {
		s.log.Error("a state that was to be loaded is refused", "part", uint32(kind), "error", err)
		return resFail
	}
	s.set = true
	s.volatile = s.volatile || kind == BlobVolatile
	return resOK
}
