// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"golang.org/x/sys/unix"

	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// The volatile file:
//
//	0x00000  header: magic, version, sizes, slot id, checksum (64 bytes)
//	0x00040  commit word (8 bytes)
//	0x01000  checkpoint, even serial numbers
//	0x11000  checkpoint, odd serial numbers
//	0x21000  journal of the committed checkpoint
//	0x31000  end
//
// Checkpoints and journal are sealed; header and commit word are in clear. Who
// can write the file can make the run fail, or set it back to an earlier moment
// of the same run and the same permanent state, as by restoring the whole file.
//
// It is mapped and never synced. Only the death of the worker matters, and
// the kernel keeps a mapping's stores in order of execution then. A host crash
// may tear the file, or leave it whole as it was a while ago; but it ends the
// run as well, so a file of an earlier boot is not looked into.
const (
	volMagic      = "hwvtpm-v"
	volVersion    = 2
	volHeaderSize = 64
	commitOffset  = 64
	slotOffset    = 0x1000
	slotSize      = 0x10000 // libtpms' volatile state is about 9 KiB, 17 at most seen
	journalOffset = slotOffset + 2*slotSize
	journalSize   = 0x10000
	volSize       = wire.VolatileSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// volatileFile is the mapped file. Its methods are called by the slot's
// goroutine only.
type volatileFile struct {
	mem []byte
}

// openVolatile maps the file that is there. It fails with errForeign if the
// file belongs to another slot, with errOtherBoot if the machine was booted
// since it was made, and with errCorrupt if it is missing or not a volatile
// file, which costs the run but not the TPM.
func openVolatile(st storage, slotID sealed.SlotID) (*volatileFile, error) {
	mem, err := st.mapVolatile()
	if err != nil {
		return nil, err
	}
	v := &volatileFile{mem: mem}
	head := [volHeaderSize]byte(v.mem)
	err = checkVolatileHeader(head[:], slotID)
	if boot := st.bootID(); err == nil && !bytes.Equal(head[32:48], boot[:]) {
		err = errOtherBoot
	}
	if err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// newVolatile gives the file made anew, in which no checkpoint counts.
func newVolatile(st storage, slotID sealed.SlotID) (*volatileFile, error) {
	mem, err := st.freshVolatile()
	if err != nil {
		return nil, err
	}
	copy(mem, appendVolatileHeader(nil, slotID, st.bootID()))
	return &volatileFile{mem: mem}, nil
}

// allocate gives a new file its full size with blocks behind it, so that a full
// disk cannot fault a later store.
func allocate(fd int) error {
	err := unix.Fallocate(fd, 0, 0, volSize)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = unix.Pwrite(fd, make([]byte, volSize), 0)
	}
	return err
}

// mapVolatile maps a file if it has the size of a volatile file.
func mapVolatile(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat volatile file: %w", err)
	}
	if st.Size != volSize {
		return nil, fmt.Errorf("volatile file has %d bytes, want %d: %w", st.Size, volSize, errCorrupt)
	}
	mem, err := unix.Mmap(fd, 0, volSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map volatile file: %w", err)
	}
	return mem, nil
}

// close unmaps the file. It is idempotent.
func (v *volatileFile) close() {
	if v.mem != nil {
		unix.Munmap(v.mem)
	}
	v.mem = nil
}

// appendVolatileHeader appends the header to dst.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-v"        | version    | file size  |
//	+-------------------------+------------+------------+
//	| slot id                                           | 16
//	+---------------------------------------------------+
//	| boot id of the machine                            | 32
//	+--------------------------------------+------------+
//	| reserved (12)                        | CRC-32C    | 48
//	+--------------------------------------+------------+
//
// Little-endian. Written once, when the file is made.
func appendVolatileHeader(dst []byte, slotID sealed.SlotID, boot [16]byte) []byte {
	var h [volHeaderSize]byte
	copy(h[0:], volMagic)
	binary.LittleEndian.PutUint32(h[8:], volVersion)
	binary.LittleEndian.PutUint32(h[12:], volSize)
	copy(h[16:], slotID[:])
	copy(h[32:], boot[:])
	binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], castagnoli))
	return append(dst, h[:]...)
}

func checkVolatileHeader(h []byte, slotID sealed.SlotID) error {
	if crc32.Checksum(h[:60], castagnoli) != binary.LittleEndian.Uint32(h[60:]) || !bytes.HasPrefix(h, []byte(volMagic)) {
		return fmt.Errorf("volatile file header: %w", errCorrupt)
	}
	if v := binary.LittleEndian.Uint32(h[8:]); v != volVersion {
		return fmt.Errorf("volatile file has version %d, want %d: %w", v, volVersion, errCorrupt)
	}
	if !bytes.Equal(h[16:32], slotID[:]) {
		return fmt.Errorf("volatile file carries slot id %x, the state file %x: the files of two slots were mixed; restore both from one place, or remove the volatile file if the virtual machine is off: %w",
			h[16:32], slotID, errForeign)
	}
	return nil
}

// slot gives the place of the checkpoint with this serial number.
func (v *volatileFile) slot(serial uint32) []byte {
	off := slotOffset + int(serial&1)*slotSize
	return v.mem[off : off+slotSize]
}

// journal gives the place of the journal.
func (v *volatileFile) journal() []byte {
	return v.mem[journalOffset : journalOffset+journalSize]
}
