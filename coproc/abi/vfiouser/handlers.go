// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func (s *session) mapDMA(m *message) error {
	r, err := parseDMAMap(m.body)
	if err != nil {
		return err
	}
	var fd *FD
	if len(m.fds) > 0 {
		fd = m.takeFDs()[0]
	}
	return s.dev.MapDMA(r, fd)
}

func (s *session) unmapDMA(body []byte) error {
	r, err := parseDMAUnmap(body)
	if err != nil {
		return err
	}
	s.out = r.append(s.out)
	return s.dev.UnmapDMA(r.Address, r.Size)
}

func (s *session) info(body []byte) error {
	if _, err := parseDeviceInfo(body); err != nil {
		return err
	}
	s.out = DeviceInfo{Flags: DeviceResets | DevicePCI, Regions: PCIRegions, IRQs: PCIIRQs}.append(s.out)
	return nil
}

func (s *session) regionInfo(body []byte) error {
	q, err := parseRegionInfo(body)
	if err != nil {
		return err
	}
	if q.Index >= PCIRegions {
		return fmt.Errorf("region %d: %w", q.Index, ErrProtocol)
	}
	r := RegionInfo{Index: q.Index, Size: s.dev.Region(q.Index)}
	if r.Size != 0 {
		r.Flags = RegionReadable | RegionWriteable
	}
	s.out = r.append(s.out)
	return nil
}

func (s *session) irqInfo(body []byte) error {
	q, err := parseIRQInfo(body)
	if err != nil {
		return err
	}
	if q.Index >= PCIIRQs {
		return fmt.Errorf("interrupt type %d: %w", q.Index, ErrProtocol)
	}
	r := IRQInfo{Index: q.Index}
	if q.Index == IRQMSIX {
		r.Flags, r.Count = IRQEventFD, s.dev.Vectors()
	}
	s.out = r.append(s.out)
	return nil
}

// setIRQs knows only what assigns and takes away eventfds, and the trigger of
// none, which ends all. Masks are the client's own affair with MSI-X.
func (s *session) setIRQs(m *message) error {
	q, err := parseIRQSet(m.body)
	if err != nil {
		return err
	}
	count := s.dev.Vectors()
	if q.index != IRQMSIX || q.start+q.count > count || q.flags&irqActionTrigger == 0 {
		if q.count == 0 {
			return nil // clients end what they never began
		}
		return fmt.Errorf("interrupts %d to %d of type %d, flags %#x: %w", q.start, q.start+q.count, q.index, q.flags, unix.ENOTSUP)
	}
	switch {
	case q.flags&irqDataNone != 0 && q.count == 0:
		s.dev.SetVectors(0, make([]*FD, count))
		return nil
	case q.flags&irqDataEventFD == 0:
		return fmt.Errorf("interrupts by request: %w", unix.ENOTSUP)
	case len(m.fds) == 0:
		s.dev.SetVectors(q.start, make([]*FD, q.count))
		return nil
	case len(m.fds) != int(q.count):
		return fmt.Errorf("%d descriptors for %d interrupts: %w", len(m.fds), q.count, ErrProtocol)
	}
	for _, f := range m.fds {
		if err := f.asEvent(); err != nil {
			return err
		}
	}
	s.dev.SetVectors(q.start, m.takeFDs())
	return nil
}

// region checks that an access is inside of its region.
func (s *session) region(a access) error {
	size := s.dev.Region(a.region)
	if end := a.offset + uint64(a.count); a.region >= PCIRegions || end > size {
		return fmt.Errorf("access to %#x of region %d, which has %#x bytes: %w", end, a.region, size, ErrProtocol)
	}
	return nil
}

func (s *session) read(body []byte) error {
	a, _, err := parseAccess(body)
	if err == nil {
		err = s.region(a)
	}
	if err != nil {
		return err
	}
	s.out = append(a.append(s.out), make([]byte, a.count)...)
	return s.dev.ReadRegion(a.region, a.offset, s.out[accessSize:])
}

func (s *session) write(body []byte) error {
	a, data, err := parseAccess(body)
	if err == nil {
		err = s.region(a)
	}
	if err != nil {
		return err
	}
	if uint64(len(data)) != uint64(a.count) {
		return fmt.Errorf("%d bytes of data for %d: %w", len(data), a.count, ErrProtocol)
	}
	s.out = a.append(s.out)
	return s.dev.WriteRegion(a.region, a.offset, data)
}
