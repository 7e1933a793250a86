// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Device is what Serve serves: one PCI function. All calls come from the
// goroutine of Serve. An error that wraps a unix.Errno is told to the client
// as that, any other as EINVAL.
type Device interface {
	// Region gives a region's size, 0 if there is none.
	Region(index uint32) uint64

	// Vectors is the number of MSI-X vectors.
	Vectors() uint32

	// ReadRegion fills b, and WriteRegion takes it. The range is inside of
	// the region.
	ReadRegion(index uint32, off uint64, b []byte) error
	WriteRegion(index uint32, off uint64, b []byte) error

	// MapDMA makes a range of memory known. fd, nil if the range cannot be
	// mapped, is the device's from then on, also if it fails. A range that
	// overlaps another is EEXIST.
	MapDMA(m DMAMap, fd *FD) error

	// UnmapDMA forgets all ranges inside of the given one, which may be
	// none, before it returns.
	UnmapDMA(address, size uint64) error

	// SetVectors sets the eventfds of some vectors, nil to set none. They
	// are the device's from then on. start+len(fds) is at most Vectors.
	SetVectors(start uint32, fds []*FD)

	// Reset is a function reset.
	Reset()
}

// Serve serves dev to the client on sock until the client hangs up, which is
// no error, or breaks the protocol. It closes sock. The caller resets dev
// afterwards.
func Serve(sock *net.UnixConn, dev Device) error {
	defer sock.Close()
	s := &session{conn: newConn(sock), dev: dev}
	for {
		var m message
		if err := s.conn.receive(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		err := s.handle(&m)
		m.closeFDs()
		if err != nil {
			return err
		}
	}
}

// session is one connection of a client.
type session struct {
	conn    *conn
	dev     Device
	greeted bool
	out     []byte // body of the reply
}

// handle executes a command and answers it. An error ends the session.
func (s *session) handle(m *message) error {
	if m.flags&flagTypeMask != 0 {
		return fmt.Errorf("reply to nothing: %w", ErrProtocol)
	}
	s.out = s.out[:0]
	err := check(m)
	if err == nil {
		err = s.dispatch(m)
	}
	if !s.greeted {
		return fmt.Errorf("%v: no common version: %w", m.command, errors.Join(ErrProtocol, err))
	}
	if m.flags&flagNoReply != 0 {
		return nil
	}
	h := header{id: m.id, command: m.command, flags: flagReply}
	if err != nil {
		h.flags |= flagError
		h.errno = uint32(errnoOf(err))
		s.out = s.out[:0]
	}
	return s.conn.send(h, s.out, nil)
}

func errnoOf(err error) unix.Errno {
	if e, ok := errors.AsType[unix.Errno](err); ok && e != 0 {
		return e
	}
	if errors.Is(err, errUnknown) {
		return unix.ENOTSUP
	}
	return unix.EINVAL
}

func (s *session) dispatch(m *message) error {
	if s.greeted == (m.command == CmdVersion) {
		return fmt.Errorf("VERSION comes first and once: %w", ErrProtocol)
	}
	switch m.command {
	case CmdVersion:
		return s.version(m.body)
	case CmdDMAMap:
		return s.mapDMA(m)
	case CmdDMAUnmap:
		return s.unmapDMA(m.body)
	case CmdGetInfo:
		return s.info(m.body)
	case CmdGetRegionInfo:
		return s.regionInfo(m.body)
	case CmdGetIRQInfo:
		return s.irqInfo(m.body)
	case CmdSetIRQs:
		return s.setIRQs(m)
	case CmdRegionRead:
		return s.read(m.body)
	case CmdRegionWrite:
		return s.write(m.body)
	case CmdReset:
		s.dev.Reset()
		return nil
	}
	return errUnknown
}

func (s *session) version(body []byte) error {
	v, err := parseVersion(body)
	if err != nil {
		return err
	}
	if v.major != versionMajor {
		return fmt.Errorf("version %d.%d: %w", v.major, v.minor, ErrProtocol)
	}
	s.greeted = true
	s.out = version{
		major: v.major, minor: min(v.minor, versionMinor),
		maxFDs: maxFDs, maxTransfer: min(v.maxTransfer, MaxTransfer),
	}.append(s.out)
	return nil
}
