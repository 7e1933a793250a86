// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"slices"

	"hwvtpm/virtqueue"
)

var (
	errSlots  = errors.New("no free memory slot")
	errNoSlot = errors.New("no such memory region")
)

// setMemTable replaces the whole table: one descriptor per region, in the
// same order. The old table stays in force if the new one is bad.
func (s *session) setMemTable(m *message) error {
	regions, err := parseMemTable(m.body)
	if err != nil {
		return err
	}
	if len(m.fds) != len(regions) {
		return fmt.Errorf("%d descriptors for %d regions: %w", len(m.fds), len(regions), ErrProtocol)
	}
	var slots []memSlot
	for i, r := range regions {
		slot, err := mapSlot(r, m.fds[i])
		if err != nil {
			unmapSlots(slots)
			return err
		}
		slots = append(slots, slot)
	}
	table, err := newMemTable(slots)
	if err != nil {
		unmapSlots(slots)
		return err
	}
	s.replaceMemory(table, s.mem.slots)
	return nil
}

func (s *session) addMemReg(m *message) error {
	r, err := parseSingleRegion(m.body)
	if err != nil {
		return err
	}
	if len(s.mem.slots) >= maxMemSlots {
		return errSlots
	}
	slot, err := mapSlot(r, m.fds[0])
	if err != nil {
		return err
	}
	table, err := newMemTable(append(slices.Clone(s.mem.slots), slot))
	if err != nil {
		slot.unmap()
		return err
	}
	s.replaceMemory(table, nil)
	return nil
}

func (s *session) remMemReg(m *message) error {
	r, err := parseSingleRegion(m.body)
	if err != nil {
		return err
	}
	i := s.mem.index(r)
	if i < 0 {
		return errNoSlot
	}
	table, err := newMemTable(slices.Delete(slices.Clone(s.mem.slots), i, i+1))
	if err != nil {
		return err
	}
	s.replaceMemory(table, s.mem.slots[i:i+1])
	return nil
}

// replaceMemory puts a new table in force and then unmaps the slots that are
// not in it. No ring holds an address of theirs any more: rings touch memory
// only under their lock, and setMemory has held that.
func (s *session) replaceMemory(t memTable, gone []memSlot) {
	for i := range s.vrings {
		if r := s.vrings[i].ring; r != nil {
			r.setMemory(t.memory)
		}
	}
	s.mem = t
	unmapSlots(gone)
}

// setLogBase maps the dirty log. With LOG_SHMFD it is always answered: QEMU
// waits for that although the message has no need_reply.
func (s *session) setLogBase(m *message) (reply, error) {
	d, err := parseLogDesc(m.body)
	if err != nil {
		return reply{}, err
	}
	log, err := mapShared(m.fds[0], d.offset, d.size)
	if err != nil {
		return reply{}, fmt.Errorf("dirty log: %w", err)
	}
	old := s.logMap
	s.logMap, s.dirty = log, virtqueue.NewDirtyLog(log.mem)
	s.updateLogs()
	old.unmap()
	return replyU64(0), nil
}

// updateLogs tells all running rings which dirty log is in force.
func (s *session) updateLogs() {
	for i := range s.vrings {
		v := &s.vrings[i]
		if v.ring != nil {
			log, used := s.logFor(v)
			v.ring.setLog(log, used, v.addr.log)
		}
	}
}
