// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/firmware/sealed"
)

const (
	fileMagic      = "hwvtpm-t"
	fileVersion    = 1
	fileHeaderSize = 80
	maxPart        = 1 << 12
	nameSize       = 2 + sha256.Size // algorithm and digest
)

// sealedKey is the content of a key's file. None of it is secret: what the TPM
// sealed opens only there.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-t"        | version    | PCR bank   |
//	+------------+------------+------------+------------+
//	| PCR mask   | public len | private len| reserved   | 16
//	+------------+------------+------------+------------+
//	| name of the primary storage key (34) ...          | 32
//	|                                                   | 48
//	|      ...   | reserved (14)                        | 64
//	+------------+--------------------------------------+
//	| PCR values, in order                              | 80
//	+---------------------------------------------------+
//	| TPMT_PUBLIC, private part                         |
//	+---------------------------------------------------+
//	| SHA-256 of all before it (32)                     |
//	+---------------------------------------------------+
//
// Little-endian; the TPM's parts are the TPM's.
type sealedKey struct {
	selection Selection
	values    [][]byte // of the PCRs
	primary   [nameSize]byte
	public    []byte
	private   []byte
}

func (k *sealedKey) append(dst []byte) ([]byte, error) {
	mask, err := k.selection.mask()
	if err != nil {
		return nil, err
	}
	start := len(dst)
	var h [fileHeaderSize]byte
	le := binary.LittleEndian
	copy(h[0:], fileMagic)
	le.PutUint32(h[8:], fileVersion)
	le.PutUint32(h[12:], uint32(k.selection.Bank))
	le.PutUint32(h[16:], mask)
	le.PutUint32(h[20:], uint32(len(k.public)))
	le.PutUint32(h[24:], uint32(len(k.private)))
	copy(h[32:], k.primary[:])
	dst = append(dst, h[:]...)
	for _, v := range k.values {
		dst = append(dst, v...)
	}
	dst = append(append(dst, k.public...), k.private...)
	sum := sha256.Sum256(dst[start:])
	return append(dst, sum[:]...), nil
}

func parseSealedKey(b []byte) (*sealedKey, error) {
	le := binary.LittleEndian
	if len(b) < fileHeaderSize+sha256.Size || !bytes.HasPrefix(b, []byte(fileMagic)) {
		return nil, fmt.Errorf("not a key sealed by a host TPM: %w", sealed.ErrDamaged)
	}
	if v := le.Uint32(b[8:]); v != fileVersion {
		return nil, fmt.Errorf("sealed key has version %d, this program knows %d: %w", v, fileVersion, sealed.ErrVersion)
	}
	body, tail := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sha256.Sum256(body) != [32]byte(tail) {
		return nil, fmt.Errorf("sealed key: %w: restore it from a backup", sealed.ErrDamaged)
	}
	bank, public, private := le.Uint32(b[12:]), le.Uint32(b[20:]), le.Uint32(b[24:])
	if bank > 0xffff || public > maxPart || private > maxPart {
		return nil, fmt.Errorf("sealed key header is inconsistent: %w", sealed.ErrDamaged)
	}
	sel, err := selectionOf(tpm2.TPMAlgID(bank), le.Uint32(b[16:]))
	if err != nil {
		return nil, fmt.Errorf("sealed key: %w: %w", err, sealed.ErrDamaged)
	}
	rest, size := body[fileHeaderSize:], sel.digestSize()
	if len(rest) != size*len(sel.PCRs)+int(public)+int(private) {
		return nil, fmt.Errorf("sealed key header is inconsistent: %w", sealed.ErrDamaged)
	}
	k := &sealedKey{selection: sel, primary: [nameSize]byte(b[32:])}
	for range sel.PCRs {
		k.values = append(k.values, rest[:size])
		rest = rest[size:]
	}
	k.public, k.private = rest[:public], rest[public:]
	return k, nil
}
