// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/sha256"
	"encoding/binary"
)

// LoadArgs starts a background load for crash tests. Step i (from 1) writes i,
// big-endian, to the NV index and then extends the PCR by LoadDigest(i).
type LoadArgs struct {
	TPMArgs
	Index uint32 `json:"index"` // 8 byte NV index, defined by the caller; 0: no NV writes
	PCR   int    `json:"pcr"`   // SHA-256 bank; negative: no extends
	Steps uint64 `json:"steps,omitempty"`
}

// LoadStatus says how far the load has come. It stops at its first error, so
// the TPM's state is that of the acknowledged steps, or one operation further if
// the failed one was executed and only its answer was lost.
type LoadStatus struct {
	Running bool   `json:"running"`
	NV      uint64 `json:"nv"`  // last value whose write was acknowledged
	PCR     uint64 `json:"pcr"` // number of extends acknowledged
	Error   string `json:"error,omitempty"`
}

// LoadDigest is what step i extends the PCR by.
func LoadDigest(i uint64) [sha256.Size]byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], i)
	return sha256.Sum256(b[:])
}

// LoadPCR is the value of a SHA-256 PCR that was start before the load, after
// n of its extends.
func LoadPCR(start [sha256.Size]byte, n uint64) [sha256.Size]byte {
	for i := uint64(1); i <= n; i++ {
		d := LoadDigest(i)
		start = sha256.Sum256(append(start[:], d[:]...))
	}
	return start
}
