// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// Pages of the memory that the card sees, four for each queue.
const (
	pageSQ      = 0
	pageCQ      = 1
	pagePayload = 2
	pageAnswer  = 3
	queuePages  = 4

	memorySize = maxQueues * queuePages * abi.PageSize
	memoryIOVA = 1 << 20
)

// memory is what the card sees of this process, and the events by which it
// calls. It lives as long as one transport, and as the last ring of it is used.
type memory struct {
	fd     int
	mem    []byte
	events [maxQueues]int
	users  atomic.Int32
}

func newMemory() (m *memory, err error) {
	m = &memory{fd: -1}
	m.users.Store(1)
	for i := range m.events {
		m.events[i] = -1
	}
	defer func() {
		if err != nil {
			m.release()
		}
	}()
	if m.fd, err = unix.MemfdCreate("hwvtpm-card", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	if err = unix.Ftruncate(m.fd, memorySize); err != nil {
		return nil, fmt.Errorf("size of memfd: %w", err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err = unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal memfd: %w", err)
	}
	if m.mem, err = unix.Mmap(m.fd, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map memfd: %w", err)
	}
	for i := range m.events {
		if m.events[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			m.events[i] = -1
			return nil, fmt.Errorf("eventfd: %w", err)
		}
	}
	return m, nil
}

// page gives a page of a queue, and its IOVA.
func (m *memory) page(queue, page int) ([]byte, uint64) {
	off := (queue*queuePages + page) * abi.PageSize
	return m.mem[off : off+abi.PageSize : off+abi.PageSize], memoryIOVA + uint64(off)
}

// wake makes everybody look who waits for the card.
func (m *memory) wake() {
	for _, e := range m.events {
		signal(e)
	}
}

// signal adds one event. It cannot fail in a way that matters: a full eventfd
// is pending already.
func signal(event int) {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(event, one[:])
}

// hold adds a user. There must be one already.
func (m *memory) hold() { m.users.Add(1) }

// release is each user's last call. The card must not use the memory any more
// when the last one makes it.
func (m *memory) release() {
	if m.users.Add(-1) > 0 {
		return
	}
	for _, n := range append(m.events[:], m.fd) {
		if n >= 0 {
			unix.Close(n)
		}
	}
	if m.mem != nil {
		clear(m.mem)
		unix.Munmap(m.mem)
	}
}
