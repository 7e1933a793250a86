// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// space is the address space that a function has for its DMA.
type space interface {
	mapDMA(vaddr, iova, size uint64) error
	unmapDMA(iova, size uint64) error
	close()
}

// container is the space of a group.
type container struct{ fd, group int }

func (c *container) mapDMA(vaddr, iova, size uint64) error {
	_, err := ioctlBytes(c.fd, reqMapDMA, dmaMap(vaddr, iova, size))
	return err
}

func (c *container) unmapDMA(iova, size uint64) error {
	_, err := ioctlBytes(c.fd, reqUnmapDMA, dmaUnmap(iova, size))
	return err
}

func (c *container) close() {
	closeAll(c.group, c.fd)
}

// openGroup opens a function by its group.
func (h Host) openGroup(f function) (fd int, _ space, err error) {
	c := &container{fd: -1, group: -1}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.fd, err = open(h.dev("vfio", "vfio")); err != nil {
		return -1, nil, err
	}
	if err := checkContainer(c.fd); err != nil {
		return -1, nil, err
	}
	if c.group, err = open(h.dev("vfio", f.group)); err != nil {
		return -1, nil, err
	}
	if err := h.checkViable(f, c.group); err != nil {
		return -1, nil, err
	}
	if _, err := ioctlBytes(c.group, reqGroupSetContainer, words(uint32(c.fd))); err != nil {
		return -1, nil, fmt.Errorf("set container: %w", err)
	}
	if _, err := ioctl(c.fd, reqSetIOMMU, type1v2); err != nil {
		return -1, nil, fmt.Errorf("set IOMMU: %w", explain(err))
	}
	if fd, err = ioctlBytes(c.group, reqGroupGetDeviceFD, append([]byte(f.address), 0)); err != nil {
		return -1, nil, fmt.Errorf("get function: %w", err)
	}
	return fd, c, nil
}

func checkContainer(fd int) error {
	v, err := ioctl(fd, reqGetAPIVersion, 0)
	if err != nil {
		return fmt.Errorf("get version of VFIO: %w", err)
	}
	if v != apiVersion {
		return fmt.Errorf("VFIO has version %d: %w", v, errors.ErrUnsupported)
	}
	has, err := ioctl(fd, reqCheckExtension, type1v2)
	if err != nil {
		return fmt.Errorf("ask for type 1: %w", err)
	}
	if has == 0 {
		return errors.New("VFIO has no IOMMU of type 1: modprobe vfio_iommu_type1")
	}
	return nil
}

func (h Host) checkViable(f function, group int) error {
	status := words(8, 0)
	if _, err := ioctlBytes(group, reqGroupGetStatus, status); err != nil {
		return fmt.Errorf("get status of group: %w", err)
	}
	if word(status, 1)&groupViable == 0 {
		return fmt.Errorf("IOMMU group %s is not viable: bind its other functions to vfio-pci, or to no driver: %s",
			f.group, h.neighbours(f.address))
	}
	return nil
}

// open opens a device node.
func open(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, explain(err))
	}
	return fd, nil
}

// explain adds what to do about an error of the kernel.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: another process uses the function or its group", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: give this user the device node, by a udev rule or chown", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the kernel log says why; without interrupt remapping, vfio_iommu_type1 "+
			"hands out functions only with allow_unsafe_interrupts=1", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: RLIMIT_MEMLOCK may be too low", err)
	}
	return err
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
