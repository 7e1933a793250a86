// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc/abi"
)

const (
	readyHeader = 32
	ekSize      = 8 + 68

	// MaxText bounds Ready.Text, in bytes.
	MaxText = 512
)

// Ready says that the worker serves its slot, or has made its TPM, or why it
// cannot. With a status that is not StatusOK the worker exits.
//
//	 0            4            8            12           16
//	+------------+------------+------------+------------+
//	| kind       | status     | keys       | text length|
//	+------------+------------+------------+------------+
//	| generation              | epoch                   | 16
//	+-------------------------+-------------------------+
//	| endorsement keys ...                              | 32
//	+---------------------------------------------------+
//	| text ...                                          |
//	+---------------------------------------------------+
//
// and each endorsement key
//
//	 0            4            8
//	+------------+------------+---------------------------+
//	| handle     | name length| name, zeros up to 68 ...  |
//	+------------+------------+---------------------------+
type Ready struct {
	Status            abi.Status
	Generation, Epoch uint64   // of the permanent state
	EKs               []abi.EK // of a TPM that was made
	Text              string   // why the status is what it is; cut after MaxText bytes
}

// AppendReady appends r in wire form to dst.
func AppendReady(dst []byte, r *Ready) []byte {
	le := binary.LittleEndian
	eks, text := r.EKs[:min(len(r.EKs), abi.MaxEKs)], r.Text[:min(len(r.Text), MaxText)]
	var h [readyHeader]byte
	le.PutUint32(h[0:], uint32(KindReady))
	le.PutUint32(h[4:], uint32(r.Status))
	le.PutUint32(h[8:], uint32(len(eks)))
	le.PutUint32(h[12:], uint32(len(text)))
	le.PutUint64(h[16:], r.Generation)
	le.PutUint64(h[24:], r.Epoch)
	dst = append(dst, h[:]...)
	for _, ek := range eks {
		var b [ekSize]byte
		le.PutUint32(b[0:], ek.Handle)
		le.PutUint32(b[4:], uint32(copy(b[8:8+abi.MaxEKName], ek.Name)))
		dst = append(dst, b[:]...)
	}
	return append(dst, text...)
}

// ParseReady reads a Ready. Its parts are copies.
func ParseReady(b []byte) (Ready, error) {
	le := binary.LittleEndian
	if len(b) < readyHeader || MessageKind(b) != KindReady {
		return Ready{}, fmt.Errorf("ready of %d bytes: %w", len(b), ErrMalformed)
	}
	status, n, text := le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])
	if status > 0xffff || n > abi.MaxEKs || text > MaxText || len(b) != readyHeader+int(n)*ekSize+int(text) {
		return Ready{}, fmt.Errorf("ready with %d keys and %d bytes of text: %w", n, text, ErrMalformed)
	}
	r := Ready{Status: abi.Status(status), Generation: le.Uint64(b[16:]), Epoch: le.Uint64(b[24:])}
	for b = b[readyHeader:]; n > 0; n-- {
		size := le.Uint32(b[4:])
		if size > abi.MaxEKName || !zero(b[8+size:ekSize]) {
			return Ready{}, fmt.Errorf("endorsement key with a name of %d bytes: %w", size, ErrMalformed)
		}
		r.EKs = append(r.EKs, abi.EK{Handle: le.Uint32(b), Name: append([]byte(nil), b[8:8+size]...)})
		b = b[ekSize:]
	}
	r.Text = string(b)
	return r, nil
}
