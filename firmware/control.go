// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"sync"

	"hwvtpm/coproc/abi"
)

// running names the command that is executed, for the control channel.
type running struct {
	cancelTPM func()

	mu   sync.Mutex
	seq  uint64
	busy bool
}

func (r *running) begin(seq uint64) {
	r.mu.Lock()
	r.seq, r.busy = seq, true
	r.mu.Unlock()
}

func (r *running) end() {
	r.mu.Lock()
	r.busy = false
	r.mu.Unlock()
}

// cancel cancels the command seq if it is the one that runs. Holding the lock
// keeps the command's end, and so the next command, behind the cancel.
func (r *running) cancel(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy && r.seq == seq {
		r.cancelTPM()
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
