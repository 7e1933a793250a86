// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"

	"hwvtpm/virtqueue"
)

// openInflight prepares tracking for a ring that is about to start; nil if
// the front-end did not ask for it. If requests were in flight when an
// earlier back-end ended, it sets the ring back so that they come first.
//
// This back-end serves a ring strictly in order. So the requests in flight are
// the oldest not used ones, their entries in the available ring are intact,
// and to resubmit them is to start at the used index.
func (s *session) openInflight(v *vring) (*inflightQueue, error) {
	a := &s.inflight
	if a.shared == nil || s.features&(1<<virtqueue.FeatureRingPacked) != 0 {
		return nil, nil
	}
	if v.index >= int(a.desc.queues) || v.size != uint32(a.desc.queueSize) {
		return nil, fmt.Errorf("%w: vring %d of size %d", errInflightArea, v.index, v.size)
	}
	stride := a.desc.size / uint64(a.desc.queues)
	need := inflightHeaderSize + inflightDescState*uint64(v.size)
	if stride < need {
		return nil, errInflightArea
	}
	used, err := s.mem.memory.User(v.addr.used, 4)
	if err != nil {
		return nil, fmt.Errorf("used ring: %w", err)
	}
	off := stride * uint64(v.index)
	q := &inflightQueue{mem: a.shared.mem[off : off+need], size: uint16(v.size), usedIdx: order.Uint16(used[2:])}
	switch version := order.Uint16(q.mem[8:]); {
	case version == 0:
		q.format()
		return q, nil
	case version != inflightVersion || order.Uint16(q.mem[10:]) != q.size:
		return nil, fmt.Errorf("%w: version %d, %d descriptors", errInflightState, version, order.Uint16(q.mem[10:]))
	}
	if err := q.settle(); err != nil {
		return nil, err
	}
	if err := s.checkOldest(v, q, q.heads()); err != nil {
		return nil, err
	}
	v.base = uint32(q.usedIdx)
	return q, nil
}

// checkOldest verifies that heads are the entries of the available ring from
// the used index on.
func (s *session) checkOldest(v *vring, q *inflightQueue, heads []uint16) error {
	avail, err := s.mem.memory.User(v.addr.avail, 4+2*uint64(v.size))
	if err != nil {
		return fmt.Errorf("available ring: %w", err)
	}
	for i, head := range heads {
		slot := (int(q.usedIdx) + i) % int(v.size)
		if order.Uint16(avail[4+2*slot:]) != head {
			return errInflightOrder
		}
	}
	if len(heads) > 0 {
		s.log.Info("requests in flight are served again", "vring", v.index, "count", len(heads))
	}
	return nil
}

// getInflightFD makes the shared buffer and gives it to the front-end. For a
// packed ring it declines by a size of zero, which front-ends take as "none".
func (s *session) getInflightFD(m *message) (reply, error) {
	d, err := parseInflightDesc(m.body)
	switch {
	case err != nil:
		return reply{}, err
	case s.features&(1<<virtqueue.FeatureRingPacked) != 0:
		return reply{}, errInflightPacked
	case !s.suspended():
		return reply{}, errRunning
	case d.queues == 0 || int(d.queues) > len(s.vrings) || d.queueSize == 0 || int(d.queueSize) > s.cfg.MaxQueueSize:
		return reply{}, errInflightArea
	}
	d.size, d.offset = uint64(d.queues)*inflightQueueSize(d.queueSize), 0
	n, err := unix.MemfdCreate("vhost-user-inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return reply{}, fmt.Errorf("memfd_create: %w", err)
	}
	f := &fd{n}
	if err := s.fillInflight(f, d); err != nil {
		f.close()
		return reply{}, err
	}
	return reply{payload: d.append(nil), fd: f}, nil
}

// fillInflight gives the file its size, for good, and maps it.
func (s *session) fillInflight(f *fd, d inflightDesc) error {
	if err := unix.Ftruncate(f.n, int64(d.size)); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(f.n), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return s.mapInflight(f, d)
}

func (s *session) mapInflight(f *fd, d inflightDesc) error {
	shared, err := mapShared(f, d.offset, d.size)
	if err != nil {
		return fmt.Errorf("in-flight area: %w", err)
	}
	s.inflight.unmap()
	s.inflight = inflightArea{shared: shared, desc: d}
	return nil
}

// setInflightFD takes back a buffer that this or an earlier back-end made.
func (s *session) setInflightFD(m *message) error {
	d, err := parseInflightDesc(m.body)
	switch {
	case err != nil:
		return err
	case !s.suspended():
		return errRunning
	case d.queues == 0 || int(d.queues) > len(s.vrings):
		return errInflightArea
	}
	return s.mapInflight(m.fds[0], d)
}
