// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Grant is an open slot, for its client: the client's ends of its channel
// (docs/slot-channel.md). Who gets it closes both, and that closes the slot.
type Grant struct {
	Number        uint32
	Data, Control *os.File
}

// Close closes the slot.
func (g *Grant) Close() {
	g.Data.Close()
	g.Control.Close()
}

// line is the card's end of the two sockets of an open slot. Each worker of the
// slot in turn gets duplicates of them, so a client does not see workers come and
// go: it sees the end when the card closes the line.
type line struct{ data, control int }

// newLine makes a line and the client's end of it.
func newLine(number uint32) (*line, *Grant, error) {
	d, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("data socket: %w", err)
	}
	c, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unix.Close(d[0])
		unix.Close(d[1])
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	g := &Grant{Number: number, Data: os.NewFile(uintptr(d[1]), "data"), Control: os.NewFile(uintptr(c[1]), "control")}
	return &line{d[0], c[0]}, g, nil
}

// hungUp says whether the client has closed its end.
func (l *line) hungUp() bool {
	fds := []unix.PollFd{{Fd: int32(l.data), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

func (l *line) close() {
	unix.Close(l.data)
	unix.Close(l.control)
}
