// SPDX-License-Identifier: Apache-2.0

package abi

// The PCI function of a card: docs/coprocessor-abi.md tells how the pieces in
// registers.go, entry.go and admin.go work together. The function has one
// memory BAR, BAR 0:
//
//	0x0000  registers, below
//	0x1000  MSI-X table: vector 0 for the admin queue, 1+n for slot n
//	0x1800  MSI-X pending bits
//	0x2000  doorbell page of queue 0, the admin queue
//	0x3000  doorbell page of queue 1, which is slot 0; and so on
//
// A doorbell page has nothing else in it, so that a process can be given one
// slot's page and no other. Registers are accessed in aligned words of 4 bytes,
// 64-bit registers also in one access of 8. A card ignores other writes.

// Registers of BAR 0. RO: read-only, RW: read and write.
const (
	RegMagic   = 0x00 // RO: RegistersMagic
	RegVersion = 0x04 // RO: RegistersVersion
	RegCap     = 0x08 // RO, 64 bits: see Capabilities
	RegControl = 0x10 // RW: Control bits
	RegStatus  = 0x14 // RO: Status bits
	// The admin queue, latched when ControlEnable is set.
	RegAdminSQ      = 0x20 // RW, 64 bits: IOVA of the submission queue
	RegAdminCQ      = 0x28 // RW, 64 bits: IOVA of the completion queue
	RegAdminEntries = 0x30 // RW: entries of each of both
	RegEnd          = 0x40 // the rest of the page reads as zero
)

// Parts of BAR 0 behind the registers.
const (
	BarMSIXTable   = 0x1000
	BarMSIXPending = 0x1800
	BarDoorbells   = 0x2000
	DoorbellStride = 0x1000
)

// Words of a doorbell page.
const (
	DoorbellTail   = 0x0 // WO: index behind the last submission; starts the card
	DoorbellCancel = 0x4 // WO: low 32 bits of the sequence number to cancel
	DoorbellState  = 0x8 // RO: see QueueState
)

// RegistersMagic is "HVPC" read as little-endian.
const RegistersMagic = 0x43505648

// RegistersVersion is the major version in the upper half, which changes when
// an old driver would break, and the minor in the lower.
const RegistersVersion = 1 << 16

// Bits of RegControl.
const (
	ControlEnable = 1 << 0 // 0 -> 1: take the admin queue into service; 1 -> 0: end all queues
	ControlReset  = 1 << 1 // write 1: as after power-up; reads as zero
)

// Bits of RegStatus. Bits 8-15 hold the Fault if StatusFatal is set.
const (
	StatusReady = 1 << 0 // follows ControlEnable
	StatusFatal = 1 << 1 // the admin queue is broken: only a reset helps
)

// Limits of queues.
const (
	PageSize        = 4096 // queues and buffers are one page each, and aligned to it
	MinQueueEntries = 2
	MaxQueueEntries = PageSize / SubmissionEntrySize
	MaxSlots        = 1024
)

// DoorbellOffset is the place of a queue's doorbell page in BAR 0.
func DoorbellOffset(queue int) uint64 {
	return BarDoorbells + uint64(queue)*DoorbellStride
}

// BarSize is the size of BAR 0 of a card with so many slots: a power of two,
// as PCI wants it.
func BarSize(slots int) uint64 {
	size := uint64(BarDoorbells)
	for size < DoorbellOffset(1+slots) {
		size <<= 1
	}
	return size
}

// ValidEntries tells whether a queue may have n entries: a power of two, so
// that an index is a mask of a counter.
func ValidEntries(n uint32) bool {
	return n >= MinQueueEntries && n <= MaxQueueEntries && n&(n-1) == 0
}

// Fault is why a queue was stopped.
type Fault uint8

// Faults.
const (
	FaultNone     Fault = 0
	FaultAddress  Fault = 1 // a queue or buffer is not memory that the card may use
	FaultDoorbell Fault = 2 // a tail outside of the queue
	FaultConfig   Fault = 3 // address or size of the admin queue
)

// QueueLife is what a queue does now.
type QueueLife uint8

// Lives of a queue.
const (
	QueueNone    QueueLife = 0 // not created
	QueueLive    QueueLife = 1
	QueueFaulted QueueLife = 2 // stopped until it is deleted; its vector was signaled
)

// QueueState is the word at DoorbellState.
//
//	 31            16 15             8 7              0
//	+----------------+----------------+----------------+
//	| reserved       | fault          | life           |
//	+----------------+----------------+----------------+
type QueueState struct {
	Life  QueueLife
	Fault Fault
}

// Word gives s as it stands in the register.
func (s QueueState) Word() uint32 { return uint32(s.Life) | uint32(s.Fault)<<8 }

// ParseQueueState reads the register. Unknown bits are left out: newer cards
// may set them.
func ParseQueueState(w uint32) QueueState {
	return QueueState{Life: QueueLife(w), Fault: Fault(w >> 8)}
}

// Capabilities is the register RegCap.
//
//	 63            48 47            32 31            16 15             0
//	+----------------+----------------+----------------+----------------+
//	| ready timeout  | MSI-X vectors  | slots          | queue entries  |
//	+----------------+----------------+----------------+----------------+
type Capabilities struct {
	MaxEntries   uint16 // of a queue
	Slots        uint16 // 1 to MaxSlots
	Vectors      uint16
	ReadyTimeout uint16 // longest time for StatusReady to follow ControlEnable, in 100 ms
}

// Word gives c as it stands in the register.
func (c Capabilities) Word() uint64 {
	return uint64(c.MaxEntries) | uint64(c.Slots)<<16 | uint64(c.Vectors)<<32 | uint64(c.ReadyTimeout)<<48
}

// ParseCapabilities reads the register.
func ParseCapabilities(w uint64) Capabilities {
	return Capabilities{
		MaxEntries:   uint16(w),
		Slots:        uint16(w >> 16),
		Vectors:      uint16(w >> 32),
		ReadyTimeout: uint16(w >> 48),
	}
}
