// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxDeviceState bounds a device's migration state in both directions, so
	// that a front-end cannot make a back-end buffer without end.
	maxDeviceState = 16 << 20
	// checkTimeout is how long CHECK_DEVICE_STATE waits for a transfer to end.
	// The front-end sends it after it saw EOF or closed its end, so what
	// remains is the device's own work.
	checkTimeout = 30 * time.Second
)

var (
	errTransferRunning = errors.New("a device state transfer is running")
	errNoTransfer      = errors.New("no device state transfer was started")
	errNotSuspended    = errors.New("rings are running")
	errStateSize       = errors.New("device state is over 16 MiB")
	errStateFD         = errors.New("descriptor is neither a pipe nor a socket")
)

// transfer moves a device's state over the front-end's descriptor, in a
// goroutine of its own ("Migrating back-end state"). A nil transfer is one
// that was never started. The session goroutine owns it.
type transfer struct {
	file *os.File
	done chan struct{} // closed when the goroutine has returned
	err  error         // valid then
}

func (t *transfer) running() bool {
	if t == nil {
		return false
	}
	select {
	case <-t.done:
		return false
	default:
		return true
	}
}

// abort ends a running transfer and waits for its goroutine.
func (t *transfer) abort() {
	if t == nil {
		return
	}
	_ = t.file.Close() // makes pending reads and writes fail
	<-t.done
}

// wait returns the result of the transfer, or ends it when time is up.
func (t *transfer) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	select {
	case <-t.done:
	case <-ctx.Done():
		t.abort()
		if t.err == nil {
			return nil
		}
		return fmt.Errorf("%w: %w", ctx.Err(), t.err)
	}
	return t.err
}

// startTransfer takes f over, which must be a pipe or socket.
func startTransfer(f *fd, direction uint32, dev Device) (*transfer, error) {
	if err := f.asStream(); err != nil {
		f.close()
		return nil, err
	}
	t := &transfer{file: os.NewFile(uintptr(f.n), "device-state"), done: make(chan struct{})}
	move := t.save
	if direction == directionLoad {
		move = t.load
	}
	go func() {
		defer close(t.done)
		t.err = errors.Join(move(dev), closeOnce(t.file))
	}()
	return t, nil
}

// save writes the state; closing the file behind it tells the front-end that
// this was all.
func (t *transfer) save(dev Device) error {
	return dev.SaveState(&boundedWriter{w: t.file, left: maxDeviceState})
}

func (t *transfer) load(dev Device) error {
	return dev.LoadState(&boundedReader{r: t.file, left: maxDeviceState})
}

// closeOnce closes f, which abort may have done already.
func closeOnce(f *os.File) error {
	if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// asStream checks that f is a pipe or socket and makes it non-blocking, so
// that closing it ends pending reads and writes.
func (f *fd) asStream() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.n, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFIFO && kind != unix.S_IFSOCK {
		return errStateFD
	}
	if err := unix.SetNonblock(f.n, true); err != nil {
		return fmt.Errorf("set non-blocking: %w", err)
	}
	return nil
}

type boundedWriter struct {
	w    io.Writer
	left int
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errStateSize
	}
	n, err := b.w.Write(p)
	b.left -= n
	return n, err
}

// boundedReader fails, and does not end, where the bound is passed: a state
// that was cut off must not look like a whole one.
type boundedReader struct {
	r    io.Reader
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if n > b.left {
		return 0, errStateSize
	}
	b.left -= n
	return n, err
}

// setDeviceStateFD starts a transfer. The device must be suspended; the reply
// says that the front-end's descriptor is used and none is returned.
func (s *session) setDeviceStateFD(m *message) (reply, error) {
	p, err := parseStateTransfer(m.body)
	switch {
	case err != nil:
		return reply{}, err
	case p.phase != phaseStopped || p.direction > directionLoad:
		return reply{}, fmt.Errorf("direction %d, phase %d: %w", p.direction, p.phase, ErrProtocol)
	case !s.suspended():
		return reply{}, errNotSuspended
	case s.transfer.running():
		return reply{}, errTransferRunning
	}
	t, err := startTransfer(m.takeFD(), p.direction, s.dev)
	if err != nil {
		return reply{}, err
	}
	s.transfer = t
	return replyU64(stateNoFD), nil
}

// checkDeviceState says how the last transfer ended, once it has.
func (s *session) checkDeviceState() (reply, error) {
	if s.transfer == nil {
		return reply{}, errNoTransfer
	}
	if err := s.transfer.wait(s.ctx); err != nil {
		return reply{}, fmt.Errorf("device state: %w", err)
	}
	return replyU64(0), nil
}
