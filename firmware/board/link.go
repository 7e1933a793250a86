// SPDX-License-Identifier: Apache-2.0

package board

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card"
)

// link is the board's end of an open slot's channel (docs/slot-channel.md). Its
// data socket is read by the one goroutine that calls receive, which also closes
// it: a blocking read is the shortest way from the slot to the client.
type link struct {
	data int

	mu    sync.Mutex // guards what follows
	ctl   int
	ended bool
}

// newLink takes over a grant.
func newLink(g *card.Grant) (*link, error) {
	defer g.Close()
	l := &link{data: -1, ctl: -1}
	var err error
	if l.data, err = duplicate(g.Data); err == nil {
		l.ctl, err = duplicate(g.Control)
	}
	if err == nil {
		err = unix.SetNonblock(l.data, false)
	}
	if err != nil {
		closeFD(l.data)
		closeFD(l.ctl)
		return nil, fmt.Errorf("take over an open slot: %w", err)
	}
	return l, nil
}

func duplicate(f *os.File) (int, error) {
	n, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return n, nil
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// send hands over one submission, a whole message of the channel.
func (l *link) send(msg []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return io.ErrClosedPipe
	}
	for {
		// The socket has room: there is one submission at a time.
		err := unix.Sendto(l.data, msg, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive waits for a completion. An error, or a length of zero, means that the
// slot is not open any more.
func (l *link) receive(b []byte) (int, error) {
	for {
		n, err := unix.Read(l.data, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			l.end()
			unix.Close(l.data)
		}
		return max(n, 0), err
	}
}

// cancel asks for the end of the command seq, and does not wait. A full channel
// has a cancel already.
func (l *link) cancel(seq uint64) {
	msg := abi.AppendControl(make([]byte, 0, abi.ControlSize), abi.Control{Op: abi.ControlCancel, Arg: seq})
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		unix.Sendto(l.ctl, msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
}

// end hangs up, which ends receive, and tells the card.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		unix.Shutdown(l.data, unix.SHUT_RDWR)
		unix.Close(l.ctl)
	}
}
