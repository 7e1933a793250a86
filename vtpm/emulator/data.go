// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// splitTimeout is how long a command may be under way in pieces. QEMU sends
// each in one piece, as large as the guest made it, which may be less than it
// says, and even less than a header: such a guest must get an answer too.
const splitTimeout = 2 * time.Second

// dataChannel carries commands and responses. Its goroutine reads, executes and
// writes, one command at a time, until the peer hangs up or shutdown is called.
type dataChannel struct {
	session *session
	done    chan struct{} // closed when nothing is served any more
	told    chan struct{} // closed when that has been told, too
	command [maxBuffer + 1]byte
	answer  [maxBuffer]byte

	mu     sync.Mutex // guards the life of fd
	fd     int
	closed bool
}

// startData begins to serve fd, which the channel owns from here on.
func (s *session) startData(fd int) *dataChannel {
	d := &dataChannel{session: s, fd: fd, done: make(chan struct{}), told: make(chan struct{})}
	go func() {
		defer close(d.told)
		d.serve()
		if f := s.server.cfg.OnDataEnd; f != nil {
			f()
		}
	}()
	return d
}

func (d *dataChannel) serve() {
	defer close(d.done)
	defer d.close()
	for {
		n, err := d.receive()
		if err != nil {
			return
		}
		m := d.session.execute(d.command[:n], d.answer[:])
		err = d.send(d.answer[:m])
		// Commands carry passwords, responses carry secrets.
		clear(d.command[:n])
		clear(d.answer[:m])
		if err != nil {
			return
		}
	}
}

// shutdown makes the goroutine end soon, unless it waits for the TPM. It may be
// called by any goroutine.
func (d *dataChannel) shutdown() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		_ = unix.Shutdown(d.fd, unix.SHUT_RDWR)
	}
}

func (d *dataChannel) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	closeFD(d.fd)
}

// over reports whether the channel has ended, and first lets it end if its peer
// has hung up.
func (d *dataChannel) over() bool {
	d.mu.Lock()
	var hangup bool
	if !d.closed {
		p := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		hangup = err == nil && n > 0
	}
	d.mu.Unlock()
	if hangup {
		d.session.cancelUntil(d.done) // nobody reads the response
	}
	select {
	case <-d.done:
		<-d.told
		return true
	default:
		return false
	}
}

// receive waits for a command and returns how many bytes of it are in
// d.command: as with swtpm, a command is what is there when it is read. Only if
// that is less than it says, the rest may follow for splitTimeout.
func (d *dataChannel) receive() (int, error) {
	n, err := d.read(d.command[:])
	if err != nil || n >= missing(d.command[:n]) {
		return n, err
	}
	end := time.Now().Add(splitTimeout)
	for n < missing(d.command[:n]) {
		left := time.Until(end)
		if left <= 0 || !await(d.fd, unix.POLLIN, int(left.Milliseconds())+1) {
			break // the size check answers it
		}
		m, err := d.read(d.command[n:])
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// missing is how long the message that b begins wants to be, or 0 if that can't
// be waited for.
func missing(b []byte) int {
	if len(b) < tpmHeader {
		return tpmHeader
	}
	if size := sizeOf(b); size <= maxBuffer {
		return int(size)
	}
	return 0
}

// read reads what there is, at least one byte. A descriptor that the peer has
// made non-blocking, which it may at any time, is waited for with poll(2).
func (d *dataChannel) read(b []byte) (int, error) {
	for {
		n, err := unix.Read(d.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			await(d.fd, unix.POLLIN, -1)
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (d *dataChannel) send(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(d.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			await(d.fd, unix.POLLOUT, -1)
		case err != nil:
			return err
		default:
			b = b[n:]
		}
	}
	return nil
}

// await waits until fd is ready, or for ms milliseconds; -1: for any time. A
// dead descriptor is ready.
func await(fd int, events int16, ms int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(p, ms)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}
