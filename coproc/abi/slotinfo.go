// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Sizes of structures of the management of slots, in bytes.
const (
	SlotCreateSize = 128
	SlotInfoSize   = 256
)

// CreateNewIdentity in SlotCreate.Flags: the new slot gets endorsement seeds of
// its own. OpSlotClone wants it, and OpSlotCreate does not take it.
const CreateNewIdentity = 1 << 0

// SlotCreate is the payload of OpSlotCreate and OpSlotClone.
//
//	 0                         4                         8
//	+-------------------------+-------------------------+
//	| flags                   | keys                    | 0
//	+-------------------------+-------------------------+
//	| PCR banks               | reserved                | 8
//	+-------------------------+-------------------------+
//	| name (64 bytes, padded with zeros)                | 16
//	:                                                   :
//	+---------------------------------------------------+
//	| access key: Ed25519 public key (32 bytes)         | 80
//	:                                                   :
//	+---------------------------------------------------+
//	| reserved (16 bytes)                               | 112
//	+---------------------------------------------------+
type SlotCreate struct {
	Flags     uint32 // CreateNewIdentity, or none
	Keys      Keys
	Banks     Banks
	Name      string
	AccessKey [32]byte // whoever holds the other half can open the slot
}

// AppendSlotCreate appends c in wire form to dst.
func AppendSlotCreate(dst []byte, c *SlotCreate) []byte {
	var b [SlotCreateSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], c.Flags)
	le.PutUint32(b[4:], uint32(c.Keys))
	le.PutUint32(b[8:], uint32(c.Banks))
	putName(b[16:16+nameField], c.Name)
	copy(b[80:112], c.AccessKey[:])
	return append(dst, b[:]...)
}

// ParseSlotCreate reads a SlotCreate and checks its form: flags, sets and name.
func ParseSlotCreate(b []byte) (SlotCreate, error) {
	if len(b) != SlotCreateSize || orBytes(b[12:16])|orBytes(b[112:]) != 0 {
		return SlotCreate{}, fmt.Errorf("slot create: %w", ErrMalformed)
	}
	le := binary.LittleEndian
	c := SlotCreate{
		Flags: le.Uint32(b[0:]),
		Keys:  Keys(le.Uint32(b[4:])),
		Banks: Banks(le.Uint32(b[8:])),
	}
	copy(c.AccessKey[:], b[80:112])
	if c.Flags&^CreateNewIdentity != 0 || !c.Keys.Valid() || !c.Banks.Valid() {
		return SlotCreate{}, fmt.Errorf("slot create: flags %#x, keys %#x, banks %#x: %w",
			c.Flags, uint32(c.Keys), uint32(c.Banks), ErrMalformed)
	}
	var err error
	if c.Name, err = parseName(b[16 : 16+nameField]); err != nil {
		return SlotCreate{}, fmt.Errorf("slot create: %w", err)
	}
	return c, nil
}

// SlotLife is what a slot does now.
type SlotLife uint32

// Lives of a slot.
const (
	LifeClosed  SlotLife = 0 // no client
	LifeLive    SlotLife = 1 // a client, and a worker that holds the TPM
	LifeParked  SlotLife = 2 // a client; the TPM is at rest until the next command
	LifeLocked  SlotLife = 3 // cannot be opened until it is unlocked
	LifeFaulted SlotLife = 4 // cannot be opened; OpSlotOpen tells why
)

var lifeNames = [...]string{"closed", "live", "parked", "locked", "faulted"}

// String names the life.
func (l SlotLife) String() string {
	if int(l) < len(lifeNames) {
		return lifeNames[l]
	}
	return "unknown"
}

// SlotInfo describes a slot. Nothing in it is secret.
//
//	 0                         4                         8
//	+-------------------------+-------------------------+
//	| number                  | life                    | 0
//	+-------------------------+-------------------------+
//	| slot id (16 bytes, random, fixed for life)        | 8
//	|                                                   | 16
//	+---------------------------------------------------+
//	| name (64 bytes, padded with zeros)                | 24
//	:                                                   :
//	+-------------------------+-------------------------+
//	| keys                    | PCR banks               | 88
//	+-------------------------+-------------------------+
//	| generation of the durable state                   | 96
//	+---------------------------------------------------+
//	| epoch of the durable state                        | 104
//	+---------------------------------------------------+
//	| created, seconds since 1970                       | 112
//	+---------------------------------------------------+
//	| last used, seconds since 1970, 0: not known       | 120
//	+---------------------------------------------------+
//	| commands                                          | 128
//	+---------------------------------------------------+
//	| restarts                                          | 136
//	+-------------------------+-------------------------+
//	| worker pid, 0: none     | reserved                | 144
//	+-------------------------+-------------------------+
//	| access key: Ed25519 public key (32 bytes)         | 152
//	:                                                   :
//	+---------------------------------------------------+
//	| EKDigest of its endorsement keys (32 bytes)       | 184
//	:                                                   :
//	+---------------------------------------------------+
//	| reserved (40 bytes)                               | 216
//	+---------------------------------------------------+
type SlotInfo struct {
	Number             uint32
	Life               SlotLife
	ID                 [16]byte
	Name               string
	Keys               Keys
	Banks              Banks
	Generation, Epoch  uint64
	Created, LastUsed  int64  // seconds since 1970, 0: not known
	Commands, Restarts uint64 // since the card was started
	WorkerPID          uint32
	AccessKey          [32]byte
	EKNames            [32]byte // see EKDigest
}

// AppendSlotInfo appends i in wire form to dst.
func AppendSlotInfo(dst []byte, i *SlotInfo) []byte {
	var b [SlotInfoSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], i.Number)
	le.PutUint32(b[4:], uint32(i.Life))
	copy(b[8:24], i.ID[:])
	putName(b[24:24+nameField], i.Name)
	le.PutUint32(b[88:], uint32(i.Keys))
	le.PutUint32(b[92:], uint32(i.Banks))
	le.PutUint64(b[96:], i.Generation)
	le.PutUint64(b[104:], i.Epoch)
	le.PutUint64(b[112:], uint64(i.Created))
	le.PutUint64(b[120:], uint64(i.LastUsed))
	le.PutUint64(b[128:], i.Commands)
	le.PutUint64(b[136:], i.Restarts)
	le.PutUint32(b[144:], i.WorkerPID)
	copy(b[152:184], i.AccessKey[:])
	copy(b[184:216], i.EKNames[:])
	return append(dst, b[:]...)
}

// ParseSlotInfo reads a SlotInfo.
func ParseSlotInfo(b []byte) (SlotInfo, error) {
	if len(b) != SlotInfoSize || orBytes(b[148:152])|orBytes(b[216:]) != 0 {
		return SlotInfo{}, fmt.Errorf("slot info: %w", ErrMalformed)
	}
	le := binary.LittleEndian
	i := SlotInfo{
		Number:     le.Uint32(b[0:]),
		Life:       SlotLife(le.Uint32(b[4:])),
		Keys:       Keys(le.Uint32(b[88:])),
		Banks:      Banks(le.Uint32(b[92:])),
		Generation: le.Uint64(b[96:]),
		Epoch:      le.Uint64(b[104:]),
		Created:    int64(le.Uint64(b[112:])),
		LastUsed:   int64(le.Uint64(b[120:])),
		Commands:   le.Uint64(b[128:]),
		Restarts:   le.Uint64(b[136:]),
		WorkerPID:  le.Uint32(b[144:]),
	}
	copy(i.ID[:], b[8:24])
	copy(i.AccessKey[:], b[152:184])
	copy(i.EKNames[:], b[184:216])
	if i.Life > LifeFaulted || !i.Keys.Valid() || !i.Banks.Valid() {
		return SlotInfo{}, fmt.Errorf("slot info: life %d, keys %#x, banks %#x: %w",
			i.Life, uint32(i.Keys), uint32(i.Banks), ErrMalformed)
	}
	var err error
	if i.Name, err = parseName(b[24 : 24+nameField]); err != nil {
		return SlotInfo{}, fmt.Errorf("slot info: %w", err)
	}
	return i, nil
}

// ParseSlotList reads the answer to OpSlotList: whole SlotInfos, at most
// MaxListed, their numbers at least from and ascending, so that a reader who
// asks for more always comes to an end.
func ParseSlotList(b []byte, from uint32) ([]SlotInfo, error) {
	if len(b)%SlotInfoSize != 0 || len(b) > MaxListed*SlotInfoSize {
		return nil, fmt.Errorf("slot list of %d bytes: %w", len(b), ErrMalformed)
	}
	list := make([]SlotInfo, 0, len(b)/SlotInfoSize)
	next := uint64(from)
	for ; len(b) > 0; b = b[SlotInfoSize:] {
		i, err := ParseSlotInfo(b[:SlotInfoSize])
		if err != nil {
			return nil, err
		}
		if uint64(i.Number) < next {
			return nil, fmt.Errorf("slot list: number %d is not above the one before: %w", i.Number, ErrMalformed)
		}
		next = uint64(i.Number) + 1
		list = append(list, i)
	}
	return list, nil
}
