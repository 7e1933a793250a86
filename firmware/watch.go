// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// watch serves a control channel and watches the supervisor channel, on a
// goroutine of its own.
type watch struct {
	wake int // eventfd
	done chan struct{}
}

// watchControl starts a watch. It calls gone if the card is gone; it takes
// no message of the supervisor channel.
func watchControl(control, supervisor int, r *running, gone func()) (*watch, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	w := &watch{wake: wake, done: make(chan struct{})}
	fds := [...]unix.PollFd{
		{Fd: int32(wake), Events: unix.POLLIN},
		{Fd: int32(supervisor), Events: unix.POLLRDHUP},
		{Fd: int32(control), Events: unix.POLLIN},
	}
	go func() {
		defer close(w.done)
		serveControl(control, r, func() bool { return ready(fds[:], gone) })
		fds[2].Fd = -1 // the client is gone, and the card may still go
		ready(fds[:], gone)
	}()
	return w, nil
}

// ready waits for a message on the last descriptor. It is false if the first
// one ends the watch, or the second one says that the card is gone.
func ready(fds []unix.PollFd, gone func()) bool {
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || fds[0].Revents != 0:
			return false
		case fds[1].Revents != 0:
			gone()
			return false
		case fds[2].Revents != 0:
			return true
		}
	}
}

// stop ends the watch and waits for it, so that the descriptors can be closed.
func (w *watch) stop() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(w.wake, one[:])
	<-w.done
	unix.Close(w.wake)
}
