// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Interface is one of the kernel's ways to a function.
type Interface int

// The interfaces. Any is the group's where there is one, since every kernel
// with VFIO was built so until lately, and iommufd's otherwise.
const (
	Any Interface = iota
	Group
	IOMMUFD
)

// Device is a function that this process has for itself.
type Device struct {
	fd       int
	space    space
	mapped   [][]byte // memory that the function may use
	canReset bool
}

// Open opens a function by its address.
func (h Host) Open(address string, via Interface) (*Device, error) {
	f, err := h.lookup(address)
	if err != nil {
		return nil, err
	}
	if via == Any {
		via = h.choose(f)
	}
	d := &Device{}
	switch {
	case via == Group:
		d.fd, d.space, err = h.openGroup(f)
	case f.cdev == "":
		err = errors.New("it has no node for iommufd: the kernel has none, or is older than 6.6")
	default:
		d.fd, d.space, err = h.openIOMMUFD(f)
	}
	if err != nil {
		return nil, err
	}
	if err := d.inspect(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// choose picks the interface by what exists.
func (h Host) choose(f function) Interface {
	if _, err := os.Stat(h.dev("vfio", f.group)); err == nil || f.cdev == "" {
		return Group
	}
	return IOMMUFD
}

func (d *Device) inspect() error {
	b := info()
	if _, err := ioctlBytes(d.fd, reqDeviceGetInfo, b); err != nil {
		return fmt.Errorf("get info: %w", err)
	}
	if word(b, 1)&infoPCI == 0 {
		return errors.New("device is no PCI function")
	}
	d.canReset = word(b, 1)&infoReset != 0
	return nil
}

// CanReset tells whether there is a reset of the function alone.
func (d *Device) CanReset() bool { return d.canReset }

// Region asks about a region.
func (d *Device) Region(index uint32) (Region, error) {
	for size := regionInfoSize; ; {
		b := regionInfo(index, size)
		if _, err := ioctlBytes(d.fd, reqDeviceRegionInfo, b); err != nil {
			return Region{}, fmt.Errorf("get info of region %d: %w", index, err)
		}
		need := int(word(b, 0)) // with all capabilities
		if need <= size {
			return parseRegion(b)
		}
		if need > maxRegionInfoSize {
			return Region{}, fmt.Errorf("info of region %d has %d bytes: %w", index, need, errMalformed)
		}
		size = need
	}
}

// Interrupts tells how many interrupts of a type there are that can be
// eventfds.
func (d *Device) Interrupts(index uint32) (uint32, error) {
	b := irqInfo(index)
	if _, err := ioctlBytes(d.fd, reqDeviceIRQInfo, b); err != nil {
		return 0, fmt.Errorf("get info of interrupt %d: %w", index, err)
	}
	if word(b, 1)&irqInfoEventFD == 0 {
		return 0, nil
	}
	return word(b, 3), nil
}

// SetEvents makes eventfds the interrupts of a type, from the first on.
func (d *Device) SetEvents(index uint32, eventFDs []int) error {
	if _, err := ioctlBytes(d.fd, reqDeviceSetIRQs, irqSet(index, eventFDs)); err != nil {
		return fmt.Errorf("set events of interrupt %d: %w", index, err)
	}
	return nil
}

// resetPatience is how long a reset may be put off: the kernel only tries to
// lock the function.
const resetPatience = 2 * time.Second

// Reset resets the function. It then uses no memory, and has its
// configuration space and its interrupts as before.
func (d *Device) Reset() error {
	for deadline := time.Now().Add(resetPatience); ; time.Sleep(10 * time.Millisecond) {
		_, err := ioctl(d.fd, reqDeviceReset, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return fmt.Errorf("reset function: %w", err)
		}
	}
}

// MapDMA lets the function use size bytes of a file at iova, until Close.
// Whole pages only.
func (d *Device) MapDMA(fd int, iova, size uint64) error {
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	if err := d.space.mapDMA(addressOf(mem), iova, size); err != nil {
		unix.Munmap(mem)
		return fmt.Errorf("map %#x bytes at %#x for the function: %w", size, iova, explain(err))
	}
	d.mapped = append(d.mapped, mem)
	return nil
}

// UnmapDMA ends the use of what was mapped at iova. The memory stays this
// process's until Close.
func (d *Device) UnmapDMA(iova, size uint64) error {
	if err := d.space.unmapDMA(iova, size); err != nil {
		return fmt.Errorf("unmap %#x bytes at %#x: %w", size, iova, err)
	}
	return nil
}

// ReadRegion and WriteRegion access a region by the kernel.
func (d *Device) ReadRegion(r Region, off uint64, b []byte) error {
	if err := r.check(off, len(b)); err != nil {
		return err
	}
	n, err := unix.Pread(d.fd, b, int64(r.Offset+off))
	return whole("read", off, n, len(b), err)
}

// WriteRegion writes.
func (d *Device) WriteRegion(r Region, off uint64, b []byte) error {
	if err := r.check(off, len(b)); err != nil {
		return err
	}
	n, err := unix.Pwrite(d.fd, b, int64(r.Offset+off))
	return whole("write", off, n, len(b), err)
}

func (r Region) check(off uint64, n int) error {
	if off > r.Size || uint64(n) > r.Size-off {
		return fmt.Errorf("%d bytes at %#x of %#x: %w", n, off, r.Size, unix.EINVAL)
	}
	return nil
}

func whole(what string, off uint64, n, want int, err error) error {
	if err == nil && n != want {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s %d bytes at %#x: %w", what, want, off, err)
	}
	return nil
}

// Close gives the function back. First it loses bus mastering, then its
// memory. No BAR may be mapped any more, since that would keep the function.
func (d *Device) Close() {
	closeAll(d.fd)
	d.space.close()
	for _, mem := range d.mapped {
		unix.Munmap(mem)
	}
	d.mapped = nil
}
