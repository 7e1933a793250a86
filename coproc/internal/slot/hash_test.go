// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// measurer is a card that takes hash sequences. What it has done outlives its workers,
// and what it has of a sequence does not.
type measurer struct {
	ghost
	done   map[uint64]string // by number
	pieces []byte
	left   int        // pieces until the worker is gone
	parked bool       // it is gone so that the next one answers "out of order"
	status abi.Status // of every piece, unless it is OK
}

func (m *measurer) Receive(sub *abi.Submission, t time.Duration) (abi.Completion, error) {
	if sub.Op != abi.OpHash {
		return m.ghost.Receive(sub, t)
	}
	p, b, err := abi.ParseHashPlace(sub.Payload)
	if err != nil {
		return abi.Completion{}, err
	}
	if p.Offset == 0 {
		m.pieces = nil
	}
	m.left--
	gone := m.left == 0
	if gone && m.parked {
		m.pieces = nil
	}
	switch {
	case m.status != abi.StatusOK:
		return abi.Completion{Status: m.status}, nil
	case int(p.Offset) != len(m.pieces):
		return abi.Completion{Status: abi.StatusOrder}, nil
	}
	m.pieces = append(m.pieces, b...)
	if len(m.pieces) == int(p.Size) {
		if _, again := m.done[sub.Seq]; !again {
			m.done[sub.Seq] = string(m.pieces)
			m.last = sub.Seq
		}
	}
	if gone && !m.parked {
		m.pieces = nil
		return abi.Completion{}, io.EOF
	}
	if len(m.pieces) < int(p.Size) {
		return m.answer(nil), nil
	}
	return m.answer([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0}), nil
}

// measured gives a slot that is powered on over a measurer.
func measured(t *testing.T, m *measurer) *Slot {
	t.Helper()
	m.done = map[uint64]string{}
	s := haunted(t, time.Minute, func() (Worker, error) { return m, nil })
	s.drop()
	return s
}

// TestHashIsWhole: whichever piece a worker dies over, or is parked before, the card
// runs the sequence once, whole.
func TestHashIsWhole(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1000)
	pieces := (len(data) + abi.MaxHashChunk - 1) / abi.MaxHashChunk
	for _, parked := range []bool{false, true} {
		for left := range pieces + 2 {
			m := &measurer{left: left, parked: parked}
			s := measured(t, m)
			for range 2 {
				if err := s.HashSequence(t.Context(), data); err != nil {
					t.Errorf("parked %t at piece %d: %v", parked, left, err)
				}
			}
			if len(m.done) != 2 || m.done[1] != string(data) || m.done[2] != string(data) {
				t.Errorf("parked %t at piece %d: %d sequences were run, or others", parked, left, len(m.done))
			}
		}
	}
}

// TestHashIsRefused: what the card says reaches the caller, and the slot goes on.
func TestHashIsRefused(t *testing.T) {
	m := &measurer{status: abi.StatusUnsupported}
	s := measured(t, m)
	if err := s.HashSequence(t.Context(), []byte("x")); !errors.Is(err, coproc.ErrUnsupported) {
		t.Errorf("HashSequence: %v, want ErrUnsupported", err)
	}
	m.status = abi.StatusOK
	if err := s.HashSequence(t.Context(), []byte("x")); err != nil || m.done[2] != "x" {
		t.Errorf("HashSequence: %v, %v", err, m.done)
	}
	if err := hashOutcome([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x23}); !errors.Is(err, coproc.ErrStorage) {
		t.Errorf("TPM_RC_NV_UNAVAILABLE is %v, want ErrStorage", err)
	}
	if err := hashOutcome(nil); !errors.Is(err, abi.ErrMalformed) {
		t.Errorf("no response is %v, want ErrMalformed", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.HashSequence(t.Context(), nil); !errors.Is(err, coproc.ErrClosed) {
		t.Errorf("HashSequence of a closed slot: %v, want ErrClosed", err)
	}
}
