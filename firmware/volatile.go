// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
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
// It is mapped and never synced. Only the death of the worker matters, and
// the kernel keeps a mapping's stores in order of execution then. A host crash
// may tear the file, or leave it whole as it was a while ago; but it ends the
// run as well, so a file of an earlier boot is not looked into.
const (
	volMagic      = "hwvtpm-v"
	volVersion    = 1
	volHeaderSize = 64
	commitOffset  = 64
	slotOffset    = 0x1000
	slotSize      = 0x10000 // libtpms' volatile state is about 9 KiB, 17 at most seen
	journalOffset = slotOffset + 2*slotSize
	journalSize   = 0x10000
	volSize       = journalOffset + journalSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// volatileFile is the mapped file. Its methods are called by the slot's
// goroutine only.
type volatileFile struct {
	mem []byte
}

// createVolatile makes the file anew, with no checkpoint in it. The blocks
// are allocated so that a full disk cannot fault a later store.
func createVolatile(d *stateDir, slotID [16]byte) (*volatileFile, error) {
	if err := unix.Unlinkat(int(d.dir.Fd()), volatileName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old volatile file: %w", err)
	}
	f, err := d.open(volatileName, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := allocate(f); err != nil {
		return nil, fmt.Errorf("allocate %s: %w", f.Name(), err)
	}
	v, err := mapVolatile(f)
	if err != nil {
		return nil, err
	}
	copy(v.mem, appendVolatileHeader(nil, slotID, d.boot))
	return v, nil
}

// allocate gives f its full size with blocks behind it.
func allocate(f *os.File) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, volSize)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.Write(make([]byte, volSize))
	}
	return err
}

// openVolatile maps the file that is there. It fails with errForeign if the
// file belongs to another slot, with errOtherBoot if the machine was booted
// since it was made, and with errCorrupt if it is missing or not a volatile
// file, which costs the run but not the TPM.
func openVolatile(d *stateDir, slotID [16]byte) (*volatileFile, error) {
	f, err := d.open(volatileName, unix.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("volatile file is missing: %w", errCorrupt)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	if info.Size() != volSize {
		return nil, fmt.Errorf("volatile file has %d bytes, want %d: %w", info.Size(), volSize, errCorrupt)
	}
	v, err := mapVolatile(f)
	if err != nil {
		return nil, err
	}
	err = checkVolatileHeader(v.mem[:volHeaderSize], slotID)
	if err == nil && !bytes.Equal(v.mem[32:48], d.boot[:]) {
		err = errOtherBoot
	}
	if err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func mapVolatile(f *os.File) (*volatileFile, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, volSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return &volatileFile{mem: mem}, nil
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
func appendVolatileHeader(dst []byte, slotID, boot [16]byte) []byte {
	var h [volHeaderSize]byte
	copy(h[0:], volMagic)
	binary.LittleEndian.PutUint32(h[8:], volVersion)
	binary.LittleEndian.PutUint32(h[12:], volSize)
	copy(h[16:], slotID[:])
	copy(h[32:], boot[:])
	binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], castagnoli))
	return append(dst, h[:]...)
}

func checkVolatileHeader(h []byte, slotID [16]byte) error {
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
