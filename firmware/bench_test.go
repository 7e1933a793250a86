// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"testing"

	"golang.org/x/sys/unix"

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

// BenchmarkServe measures a short command over sockets, for a worker with a card
// above it. The socket's wake-ups are most of it.
func BenchmarkServe(b *testing.B) {
	c := newFakeCard(b)
	c.create()
	k := newClient(b)
	c.open(k, nil)
	k.greet(1)
	k.tpm.Startup()
	msg := make([]byte, 0, abi.MaxMessage)
	in := make([]byte, abi.MaxMessage)
	cmd := command(0x17b, 0, nil, 0, 32)
	for b.Loop() {
		k.seq++
		msg = abi.AppendSubmission(msg[:0], &abi.Submission{Op: abi.OpExecute, Seq: k.seq, Payload: cmd})
		if _, err := unix.Write(k.data, msg); err != nil {
			b.Fatal(err)
		}
		if n, err := unix.Read(k.data, in); err != nil || n == 0 {
			b.Fatal(err)
		}
	}
}

// BenchmarkWake measures how long a client waits that wakes a parked slot, with
// a worker that was started before.
func BenchmarkWake(b *testing.B) {
	c := newFakeCard(b)
	c.create()
	k := newClient(b)
	l := c.open(k, nil)
	k.greet(1)
	k.tpm.Startup()
	k.tpm.CreateSRK()
	for b.Loop() {
		b.StopTimer()
		l.park()
		l = c.start()
		s := c.setup()
		resumed(&s)
		b.StartTimer()
		l.give(s, c.durable(), k.far[0], k.far[1])
		k.tpm.Random(16)
	}
}
