// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"sync"

	"hwvtpm/coproc/abi"
)

// running names the command that is executed, for the control channel.
type running struct {
	cancelTPM func()

	mu    sync.Mutex
	seq   uint64 // last that began
	busy  bool
	early uint64 // canceled before it began; 0: none
}

// begin takes down that the command seq begins, and tells whether its cancel has
// overtaken it: the two come by different ways, and a slot that is brought back
// finds both waiting.
func (r *running) begin(seq uint64) (canceled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	canceled = r.early == seq && seq != 0
	r.seq, r.busy, r.early = seq, true, 0
	return canceled
}

func (r *running) end() {
	r.mu.Lock()
	r.busy = false
	r.mu.Unlock()
}

// cancel cancels the command seq if it is the one that runs, or the next one.
// Holding the lock keeps the command's end, and so the next command, behind the
// cancel.
func (r *running) cancel(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.busy && r.seq == seq:
		r.cancelTPM()
	case seq > r.seq:
		r.early = seq
	}
}

// cancelAny cancels the command that runs, if one does.
func (r *running) cancelAny() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy {
		r.cancelTPM()
	}
}

// execute runs a command. One that its cancel has overtaken is only answered, if it is
// one that libtpms would cancel: it would not look for what came before.
func (s *server) execute(sub *abi.Submission, payload []byte) (int, abi.Flags, error) {
	s.meter.command(sub.Payload)
	canceled := s.running.begin(sub.Seq)
	defer s.running.end()
	if canceled && makesKey(sub.Payload) {
		return s.slot.refuseCanceled(sub.Seq, payload)
	}
	return s.slot.execute(sub.Seq, sub.Locality, sub.Payload, payload)
}

// serveControl answers the control channel until the driver closes it, or is
// gone; then nobody waits for the running command, and it is canceled so that
// the next driver need not wait for the lock. A malformed message is dropped:
// the channel has no way to say so. It waits for each message by ready, which
// may put an end to it.
func serveControl(fd int, r *running, ready func() bool) {
	defer r.cancelAny()
	var in [abi.ControlSize + 1]byte
	var out [abi.ControlSize]byte
	for ready() {
		n, err := readPacket(fd, in[:])
		if err != nil || n == 0 {
			return
		}
		c, err := abi.ParseControl(in[:n])
		if err != nil {
			continue
		}
		switch c.Op {
		case abi.ControlCancel:
			r.cancel(c.Arg)
		case abi.ControlPing:
			pong := abi.AppendControl(out[:0], abi.Control{Op: abi.ControlPong, Arg: c.Arg})
			if writePacket(fd, pong) != nil {
				return
			}
		}
	}
}

// always is for a control channel that is alone.
func always() bool { return true }
