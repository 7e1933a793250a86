// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"testing"

	"hwvtpm/coproc/abi"
)

// BenchmarkSlot measures commands without a socket: the TPM and what is
// written for it. StirRandom is the cheapest command of classFull, and so shows
// the price of a checkpoint.
func BenchmarkSlot(b *testing.B) {
	for _, bc := range []struct {
		name string
		cmd  []byte
	}{
		{"Pure", command(0x17b, 0, nil, 0, 32)},
		{"Journal", cmdExtend},
		{"Full", command(0x146, 0, nil, 0, 4, 1, 2, 3, 4)},
	} {
		b.Run(bc.name, func(b *testing.B) {
			r := newRig(b)
			r.powerOn(r.run)
			r.tpm.Startup()
			resp := make([]byte, abi.MaxPayload)
			buf := make([]byte, abi.MaxPayload)
			for b.Loop() {
				r.seq++
				if _, _, err := r.slot.execute(r.seq, 0, buf[:copy(buf, bc.cmd)], resp); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
