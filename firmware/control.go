// SPDX-License-Identifier: Apache-2.0

package firmware

import "hwvtpm/coproc/abi"

// serveControl answers the control channel until the driver closes it. A
// malformed message is dropped: the channel has no way to say so.
func serveControl(fd int, r *running) {
	var in [abi.ControlSize + 1]byte
	var out [abi.ControlSize]byte
	for {
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
