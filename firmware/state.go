// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

// Version history of the state file:
//
//	1  in clear, with a checksum behind it
//	2  sealed
//	3  may have a map of PCRs behind the permanent state
//	4  may have boot evidence behind that, and stateFlagEvidence
const (
	stateVersion         = 4 // written
	stateMinVersion      = 2 // oldest reader that understands what is written
	stateMapVersion      = 3 // the same, if there is a map of PCRs
	stateEvidenceVersion = 4 // the same, if there is or was boot evidence
)

const (
	stateMagic      = "hwvtpm-s"
	stateHeaderSize = 128
	maxPermanent    = 1 << 20 // libtpms: 176 KiB of NV and some overhead
	maxStateSize    = stateHeaderSize + maxPermanent + abi.MaxPCRMap + abi.MaxBootEvidence
	maxImageSize    = maxStateSize + sealed.Overhead
)

// stateFlagExact: a command was used after which no class of commands is
// cheap any more (see needsExact).
const stateFlagExact = 1 << 0

// stateFlagEvidence: there is boot evidence in the TPM's NV (see startHosted), of this
// run or of an earlier one.
const stateFlagEvidence = 1 << 1

const stateKnownFlags = stateFlagExact | stateFlagEvidence

// durable is the content of the state file: what survives the host. The file is
// sealed, as a permanent state of this slot and generation; inside is:
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-s"        | version    | min version|
//	+-------------------------+------------+------------+
//	| slot id (random, fixed for life)                  | 16
//	+-------------------------+------------+------------+
//	| generation              | engine     | flags      | 32
//	+------------+------------+------------+------------+
//	| perm length| map length | ev. length | reserved   | 48
//	+------------+------------+------------+------------+
//	| run id (32)                                       | 64
//	|                                                   | 80
//	+---------------------------------------------------+
//	| fingerprint of the state that the run was loaded  | 96
//	| from, zero if it began with a power-on            | 112
//	+---------------------------------------------------+
//	| permanent state ...                               | 128
//	+---------------------------------------------------+
//	| the run's map of PCRs (abi.PCRMap), if it has one |
//	+---------------------------------------------------+
//	| the run's boot evidence, if it has any            |
//	+---------------------------------------------------+
//
// Little-endian. A checkpoint in the volatile file carries position and
// fingerprint of the sealed state that it belongs to.
type durable struct {
	slotID     sealed.SlotID
	generation uint64
	engine     uint32 // libtpms version that wrote it, for people
	flags      uint32
	run        [abi.RunIDSize]byte
	origin     sealed.Fingerprint // of the volatile part; see slot.loadState
	permanent  []byte             // secret
	pcrs       abi.PCRMap         // in force for the run; see slot.mapPCRs
	evidence   []byte             // of the run; see slot.keepEvidence
}

// mapped tells whether PCR 0-7 are the host's.
func (d *durable) mapped() bool { return d.pcrs.Banks() != 0 }

// appendState appends what is to be sealed for d to dst.
func appendState(dst []byte, d *durable) []byte {
	var h [stateHeaderSize]byte
	le := binary.LittleEndian
	copy(h[0:], stateMagic)
	le.PutUint32(h[8:], stateVersion)
	le.PutUint32(h[12:], stateMinVersion)
	copy(h[16:], d.slotID[:])
	le.PutUint64(h[32:], d.generation)
	le.PutUint32(h[40:], d.engine)
	le.PutUint32(h[44:], d.flags)
	le.PutUint32(h[48:], uint32(len(d.permanent)))
	copy(h[64:], d.run[:])
	copy(h[96:], d.origin[:])
	var pcrs []byte
	if d.mapped() {
		pcrs = abi.AppendPCRMap(nil, &d.pcrs)
		le.PutUint32(h[12:], stateMapVersion)
		le.PutUint32(h[52:], uint32(len(pcrs)))
	}
	if len(d.evidence) > 0 || d.flags&stateFlagEvidence != 0 {
		le.PutUint32(h[12:], stateEvidenceVersion)
		le.PutUint32(h[56:], uint32(len(d.evidence)))
	}
	dst = append(append(dst, h[:]...), d.permanent...)
	return append(append(dst, pcrs...), d.evidence...)
}

// parseState reads what was sealed. The permanent state aliases b.
func parseState(b []byte) (durable, error) {
	le := binary.LittleEndian
	if len(b) < stateHeaderSize || len(b) > maxStateSize {
		return durable{}, fmt.Errorf("state file of %d bytes: %w", len(b), errCorrupt)
	}
	if !bytes.HasPrefix(b, []byte(stateMagic)) {
		return durable{}, fmt.Errorf("not a state file: %w", errCorrupt)
	}
	if v := le.Uint32(b[12:]); v > stateVersion {
		return durable{}, fmt.Errorf("state file needs version %d, this program has %d: %w", v, stateVersion, errCorrupt)
	}
	d := durable{
		generation: le.Uint64(b[32:]),
		engine:     le.Uint32(b[40:]),
		flags:      le.Uint32(b[44:]),
	}
	copy(d.slotID[:], b[16:])
	copy(d.run[:], b[64:])
	copy(d.origin[:], b[96:])
	body := b[stateHeaderSize:]
	n, m, e := uint64(le.Uint32(b[48:])), uint64(le.Uint32(b[52:])), uint64(le.Uint32(b[56:]))
	if n+m+e != uint64(len(body)) || n == 0 || d.flags&^stateKnownFlags != 0 {
		return durable{}, fmt.Errorf("state file header is inconsistent: %w", errCorrupt)
	}
	d.permanent = body[:n:n]
	if e > 0 {
		d.evidence = bytes.Clone(body[n+m:])
	}
	if m == 0 {
		return d, nil
	}
	var err error
	if d.pcrs, err = abi.ParsePCRMap(body[n : n+m]); err != nil || !d.mapped() {
		return durable{}, fmt.Errorf("state file: map of PCRs: %w: %w", errCorrupt, err)
	}
	return d, nil
}

// stateLabel reads what a sealed permanent state says it is.
func stateLabel(blob []byte) (sealed.Label, error) {
	if bytes.HasPrefix(blob, []byte(stateMagic)) {
		return sealed.Label{}, fmt.Errorf("the state is not sealed: a version before this one wrote it, and this one does not read it: %w", errCorrupt)
	}
	l, err := sealed.ParseLabel(blob)
	if err != nil {
		return l, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return l, nil
}

// openState opens a sealed permanent state.
func openState(seals *sealed.Slot, blob []byte) (durable, binding, error) {
	if _, err := stateLabel(blob); err != nil {
		return durable{}, binding{}, err
	}
	plain, l, err := seals.Open(nil, sealed.KindPermanent, blob)
	if errors.Is(err, sealed.ErrDamaged) {
		err = fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if err != nil {
		return durable{}, binding{}, err
	}
	d, err := parseState(plain)
	if err == nil && (d.slotID != l.Slot || d.generation != l.Generation) {
		err = fmt.Errorf("%s holds generation %d of %x: %w", l, d.generation, d.slotID, errCorrupt)
	}
	if err != nil {
		clear(plain)
		return durable{}, binding{}, err
	}
	b, err := bindingOf(blob)
	return d, b, err
}
