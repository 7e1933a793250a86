// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ioas is an address space of iommufd.
type ioas struct {
	fd int
	id uint32
}

func (s *ioas) mapDMA(vaddr, iova, size uint64) error {
	_, err := ioctlBytes(s.fd, reqIOASMap, ioasMap(s.id, vaddr, iova, size))
	return err
}

func (s *ioas) unmapDMA(iova, size uint64) error {
	_, err := ioctlBytes(s.fd, reqIOASUnmap, ioasUnmap(s.id, iova, size))
	return err
}

func (s *ioas) close() { closeAll(s.fd) }

// openIOMMUFD opens a function by its own node.
func (h Host) openIOMMUFD(f function) (fd int, _ space, err error) {
	s := &ioas{fd: -1}
	fd = -1
	defer func() {
		if err != nil {
			closeAll(fd)
			s.close()
			fd = -1
		}
	}()
	if fd, err = open(h.dev("vfio", "devices", f.cdev)); err != nil {
		return fd, nil, err
	}
	if s.fd, err = open(h.dev("iommu")); err != nil {
		return fd, nil, err
	}
	if _, err := ioctlBytes(fd, reqDeviceBindIOMMUFD, words(bindIOMMUFDSize, 0, uint32(s.fd), 0)); err != nil {
		if errors.Is(err, unix.EINVAL) { // the kernel's word for a node that is in use
			err = fmt.Errorf("%w (%w)", unix.EBUSY, err)
		}
		return fd, nil, fmt.Errorf("bind to iommufd: %w", explain(err))
	}
	alloc := words(12, 0, 0)
	if _, err := ioctlBytes(s.fd, reqIOASAlloc, alloc); err != nil {
		return fd, nil, fmt.Errorf("make address space: %w", err)
	}
	s.id = word(alloc, 2)
	if _, err := ioctlBytes(fd, reqDeviceAttachPT, words(12, 0, s.id)); err != nil {
		return fd, nil, fmt.Errorf("attach address space: %w", explain(err))
	}
	return fd, s, nil
}
