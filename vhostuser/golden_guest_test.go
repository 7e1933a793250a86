// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue/queuetest"
)

var order = binary.NativeEndian

// guest is the machine behind a recorded conversation: memory of the recorded
// size at the recorded addresses, of which only the ring's pages and a few
// buffers are ever touched, and a driver on the recorded ring.
type guest struct {
	memory  *vhostusertest.Memory
	options queuetest.Options
	driver  *queuetest.Driver
	base    uint32
	kick    int // the last ones that were passed on
	call    int
	fds     []int
}

// descriptor makes what QEMU passed with a message.
func (g *guest) descriptor(kind string, request vhostuser.Request, body []byte) (fd int, err error) {
	switch kind {
	case "eventfd":
		if fd, err = vhostusertest.Eventfd(); err != nil {
			return -1, err
		}
		switch request {
		case vhostuser.SetVringKick:
			g.kick = fd
		case vhostuser.SetVringCall:
			g.call = fd
		}
	case "socket":
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		fd = pair[0]
		g.fds = append(g.fds, pair[1])
	case "memfd":
		return g.share(request, body)
	default:
		return -1, errors.New("not known")
	}
	g.fds = append(g.fds, fd)
	return fd, nil
}

// share makes the one block of memory that the recorded machine has.
func (g *guest) share(request vhostuser.Request, body []byte) (int, error) {
	if request != vhostuser.AddMemReg || len(body) != 40 {
		return -1, errors.New("not the memory of a recorded machine")
	}
	gpa, size := order.Uint64(body[8:]), order.Uint64(body[16:])
	user, offset := order.Uint64(body[24:]), order.Uint64(body[32:])
	if g.memory != nil || offset != 0 {
		return -1, errors.New("one block of memory is all that a recorded machine has")
	}
	var err error
	if g.memory, err = vhostusertest.NewMemory(int(size)); err != nil {
		return -1, err
	}
	g.options.Mem, g.options.GPA, g.options.UserAddr = g.memory.Bytes, gpa, user
	return g.memory.FD, nil
}

// follow keeps the guest's ring where the messages say that it is. A ring that
// starts elsewhere than at its beginning is the one of before.
func (g *guest) follow(request vhostuser.Request, body []byte) {
	switch request {
	case vhostuser.SetFeatures:
		features := order.Uint64(body)
		g.options.Indirect, g.options.EventIdx = features>>28&1 != 0, features>>29&1 != 0
	case vhostuser.SetVringNum:
		g.options.Size = uint16(order.Uint32(body[4:]))
	case vhostuser.SetVringBase:
		g.base = order.Uint32(body[4:])
	case vhostuser.SetVringAddr:
		if g.base != 0 && g.base != 0x8000_8000 {
			return
		}
		at := func(off int) int { return int(order.Uint64(body[off:]) - g.options.UserAddr) }
		const heap = 16 << 20 // far from where the ring is
		g.options.Place = &queuetest.Layout{Desc: at(8), Device: at(16), Driver: at(24), Heap: heap, End: heap + 1<<20}
		g.driver = queuetest.NewDriver(g.options)
	}
}

// exchange sends one request, in one slot as Linux does, and checks its answer.
func (g *guest) exchange(request []byte) error {
	if g.driver == nil {
		return errors.New("the ring is not set up")
	}
	if _, err := g.driver.Add([][]byte{request}, []int{4096}, g.options.Indirect); err != nil {
		return err
	}
	if g.driver.NeedKick() {
		vhostusertest.Signal(g.kick)
	}
	for deadline := time.Now().Add(hangGuard); ; {
		if _, _, answer, ok := g.driver.Poll(); ok {
			if !bytes.Equal(answer, request) {
				return fmt.Errorf("answer %q to %q", answer, request)
			}
			return nil
		}
		if err := g.driver.Err(); err != nil {
			return err
		}
		if g.driver.EnableCall() {
			continue
		}
		if err := vhostusertest.WaitEvent(g.call, time.Until(deadline)); err != nil {
			return err
		}
	}
}

func (g *guest) close() {
	for _, fd := range g.fds {
		_ = unix.Close(fd)
	}
	if g.memory != nil {
		g.memory.Close()
	}
}
