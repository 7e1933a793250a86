// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"errors"

	"hwvtpm/coproc"
)

// hashing is a hash sequence in the making, of HASH_START, HASH_DATA and HASH_END. The
// slot gets it when it is whole. A TPM does as much: it changes no PCR before the end.
//
//	       HASH_START            HASH_END: the slot runs it
//	none ---------------> open ------------------------------> none
//	 ^                    |  |   too long, or the state leaves
//	 |   a TPM command,   |  +-------------------------------> broken
//	 +--------------------+
//	     STOP, INIT
//
// What follows without HASH_START has no effect and is no error, as with a TPM. Of a
// sequence that is broken the peer is told.
type hashing struct {
	phase hashPhase
	data  []byte // at most coproc.MaxHash
}

type hashPhase uint8

const (
	hashNone hashPhase = iota
	hashOpen
	hashBroken
)

// drop ends a sequence that the TPM would end: it forgets it.
func (h *hashing) drop() { *h = hashing{} }

// spoil ends a sequence that the TPM would go on with.
func (h *hashing) spoil() {
	if h.phase == hashOpen {
		*h = hashing{phase: hashBroken}
	}
}

// add takes data.
func (h *hashing) add(data []byte) result {
	switch {
	case h.phase == hashBroken:
		return resFail
	case h.phase == hashOpen && len(data) > coproc.MaxHash-len(h.data):
		h.spoil()
		return resSize
	case h.phase == hashOpen:
		h.data = append(h.data, data...)
	}
	return resOK
}

// hashStart is HASH_START. The established bit belongs to the machine: it lasts until
// RESET_TPMESTABLISHED or the end of the session.
func (s *session) hashStart() result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.established = true
	s.hash = hashing{phase: hashOpen}
	return resOK
}

// hashData is HASH_DATA. Like a state blob it is read to its end before it is judged.
// Who claims more than a whole sequence may have has sent its last request.
func (s *session) hashData(body []byte) (over bool, err error) {
	head, data := body[:hashDataHead], body[hashDataHead:]
	length := int64(order.Uint32(head))
	if length > coproc.MaxHash {
		return true, s.reply(resSize)
	}
	if missing := length - int64(len(data)); missing > 0 {
		whole := make([]byte, length)
		n := copy(whole, data)
		if err := s.control.fill(whole[n:]); err != nil {
			return true, err
		}
		data = whole
	}
	res := admit(cmdHashData, head, s.server.caps, s.running.Load())
	switch {
	case res != resOK:
	case int64(len(data)) > length:
		res = resBadParameter
	default:
		s.mu.Lock()
		res = s.hash.add(data)
		s.mu.Unlock()
	}
	return false, s.reply(res)
}

// hashEnd is HASH_END.
func (s *session) hashEnd() result {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hash
	s.hash.drop()
	switch h.phase {
	case hashNone:
		return resOK
	case hashBroken:
		return resFail
	}
	s.moved = false
	err := s.server.hasher.HashSequence(context.Background(), h.data)
	switch {
	case errors.Is(err, coproc.ErrUnsupported):
		s.log.Warn("a hash sequence is refused", "error", err)
		return resBadOrdinal
	case err != nil:
		s.slotFailed(err)
		return resFail
	}
	s.quiet.Store(false)
	return resOK
}
