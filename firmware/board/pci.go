// SPDX-License-Identifier: Apache-2.0

package board

import (
	"encoding/binary"

	"hwvtpm/coproc/abi"
)

// IDs name a function's maker and model.
type IDs struct {
	Vendor, Device, SubVendor, SubDevice uint16
}

// ExperimentalIDs are for laboratories. Vendor 0x1234 is nobody's: it was never
// assigned by the PCI-SIG, and QEMU uses it for devices of the same kind. A
// card that leaves the laboratory has its maker's own.
var ExperimentalIDs = IDs{Vendor: 0x1234, Device: 0x5650, SubVendor: 0x1234, SubDevice: 0x0001}

// Configuration space (PCI Local Bus 3.0, 6.1; PCI Express Base 7.5). The
// capabilities are MSI-X and PCI Express; the second is there for the function
// level reset.
const (
	configSize = 256

	pciCommand   = 0x04
	pciBAR0      = 0x10
	pciMSIX      = 0x40
	pciMSIXFlags = pciMSIX + 2
	pciExpress   = 0x50
	pciDevCtl    = pciExpress + 8

	commandBits      = 1<<1 | 1<<2 | 1<<10 // memory, bus master, INTx disable
	commandBusMaster = 1 << 2
	devCtlReset      = 1 << 15
	devCtlBits       = 0x7fff

	msixEntrySize = 16
)

// configSpace is the function's configuration space.
type configSpace struct {
	data [configSize]byte
	mask [configSize]byte // bits that can be written
}

func newConfigSpace(ids IDs) *configSpace {
	s := &configSpace{}
	le := binary.LittleEndian
	d, m := s.data[:], s.mask[:]
	le.PutUint16(d[0x00:], ids.Vendor)
	le.PutUint16(d[0x02:], ids.Device)
	le.PutUint16(d[0x06:], 1<<4)          // status: has capabilities
	copy(d[0x08:], []byte{1, 0, 0, 0x10}) // revision 1; class 0x10, encryption
	d[0x0a] = 0x80                        // other
	le.PutUint16(d[0x2c:], ids.SubVendor)
	le.PutUint16(d[0x2e:], ids.SubDevice)
	d[0x34] = pciMSIX

	copy(d[pciMSIX:], []byte{0x11, pciExpress})
	le.PutUint16(d[pciMSIXFlags:], vectors-1)
	le.PutUint32(d[pciMSIX+4:], abi.BarMSIXTable) // in BAR 0
	le.PutUint32(d[pciMSIX+8:], abi.BarMSIXPending)

	copy(d[pciExpress:], []byte{0x10, 0x00, 0x02, 0x00}) // version 2, endpoint
	le.PutUint32(d[pciExpress+4:], 1<<28|1<<15)          // function level reset, role-based errors

	le.PutUint16(m[pciCommand:], commandBits)
	le.PutUint32(m[pciBAR0:], ^uint32(abi.BarSize(slots)-1))
	m[0x0c], m[0x3c] = 0xff, 0xff // cache line, interrupt line: memory for the host
	le.PutUint16(m[pciMSIXFlags:], 1<<15|1<<14)
	le.PutUint16(m[pciDevCtl:], devCtlBits)
	return s
}

// write writes what can be written, and tells whether that asked for a
// function level reset.
func (s *configSpace) write(off int, b []byte) (reset bool) {
	for i, v := range b {
		at := off + i
		s.data[at] = s.data[at]&^s.mask[at] | v&s.mask[at]
		if at == pciDevCtl+1 && v&(devCtlReset>>8) != 0 {
			reset = true
		}
	}
	return reset
}

// busMaster tells whether the function may use memory and interrupts.
func (s *configSpace) busMaster() bool { return s.data[pciCommand]&commandBusMaster != 0 }
