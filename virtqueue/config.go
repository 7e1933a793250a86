// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"fmt"
	"math"
)

// Feature bit numbers this package looks at (VIRTIO 1.3 6).
const (
	FeatureIndirectDesc = 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIdx     = 29 // VIRTIO_F_EVENT_IDX
	FeatureVersion1     = 32 // VIRTIO_F_VERSION_1
	FeatureRingPacked   = 34 // VIRTIO_F_RING_PACKED
)

// MaxSize is the largest Queue Size of either ring format (VIRTIO 1.3 2.7, 2.8).
const MaxSize = 32768

// Config says where a ring is and where it stands.
type Config struct {
	// Size is the Queue Size: a power of two up to 32768 for a split ring, any
	// number from 1 to 32768 for a packed ring. It also bounds the number of
	// descriptors in one chain, direct or indirect, and of chains in flight.
	Size uint16
	// Features are the negotiated virtio features; only the Feature bits of
	// this package are looked at. FeatureVersion1 is required: legacy rings are
	// in the guest's byte order and not supported. FeatureRingPacked selects
	// the ring format.
	Features uint64
	// Desc, Driver and Device are user addresses, as in SET_VRING_ADDR:
	// descriptor table, available ring, used ring; or, packed: descriptor ring,
	// driver event suppression, device event suppression. Each is aligned as
	// 2.7 or 2.8.10.1 says and lies in one region.
	Desc, Driver, Device uint64
	// Base is where the ring starts (vhost-user spec, "Vring state description").
	//
	//	split    bits 0-15  next available index; the rest is ignored
	//	packed   bits 0-14  next available slot    15  its wrap counter
	//	         bits 16-30 next used slot         31  its wrap counter
	//
	// A packed ring that never ran starts at 0x80008000. A split ring finds its
	// used index in the ring itself.
	Base uint32
	// Log, if not nil, gets every page of guest memory that the queue writes.
	Log *DirtyLog
	// LogUsed extends the log to ring writes (VHOST_VRING_F_LOG). LogUsedAddr
	// is the guest physical address of Device; a packed ring's descriptors,
	// which the device writes too, are logged at their own address.
	LogUsed     bool
	LogUsedAddr uint64
	// MaxChainBytes is the most bytes a chain may have, readable and writable
	// together; more is ErrChain. 0 stands for 2^32-1, the longest chain
	// VIRTIO 1.3 2.7.5.2 allows but one byte, so that lengths fit 32 bits.
	MaxChainBytes uint32
}

func (cfg *Config) has(bit uint) bool { return cfg.Features>>bit&1 != 0 }

// check validates what needs no memory.
func (cfg *Config) check() error {
	if !cfg.has(FeatureVersion1) {
		return fmt.Errorf("%w: VIRTIO_F_VERSION_1 not negotiated", ErrConfig)
	}
	if cfg.Size == 0 || cfg.Size > MaxSize {
		return fmt.Errorf("%w: queue size %d", ErrConfig, cfg.Size)
	}
	if !cfg.has(FeatureRingPacked) && cfg.Size&(cfg.Size-1) != 0 {
		return fmt.Errorf("%w: queue size %d is not a power of two", ErrConfig, cfg.Size)
	}
	return nil
}

func (cfg *Config) maxChainBytes() uint32 {
	if cfg.MaxChainBytes == 0 {
		return math.MaxUint32
	}
	return cfg.MaxChainBytes
}
