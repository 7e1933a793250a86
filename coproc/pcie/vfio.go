// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/pcie/internal/vfio"
)

// VFIOInterface is one of the kernel's ways to a function.
type VFIOInterface int

// The interfaces of VFIO. VFIOAny takes the group's where there is one.
const (
	VFIOAny     = VFIOInterface(vfio.Any)
	VFIOGroup   = VFIOInterface(vfio.Group)   // /dev/vfio/<group>, type 1
	VFIOIOMMUFD = VFIOInterface(vfio.IOMMUFD) // /dev/iommu, Linux 6.6 and later
)

// VFIOOptions are what a user of VFIO may choose. The zero value is good.
type VFIOOptions struct {
	Interface VFIOInterface

	// NoMap has the kernel make all accesses to the BAR, which is slower. It
	// is so in any case where Go has no fit store, that is not on amd64.
	NoMap bool
}

// VFIO opens the function at a PCI address such as 0000:05:00.0 through the
// kernel's VFIO. It must be bound to vfio-pci, and this process must be allowed
// to open its device node; errors say what is missing.
//
// When the function is unplugged or unbound, the transport gives it back and
// ends: the driver tries to open it again with the next command.
func VFIO(address string) Opener { return VFIOWith(address, VFIOOptions{}) }

// VFIOWith is VFIO with options.
func VFIOWith(address string, o VFIOOptions) Opener {
	return func(onEnd func()) (Transport, error) {
		k, err := openKernel(address, o, onEnd)
		if err != nil {
			return nil, fmt.Errorf("PCI function %s: %w", address, err)
		}
		return k, nil
	}
}

// Find lists the PCI addresses of all functions of a vendor and device.
func Find(vendor, device uint16) ([]string, error) {
	return vfio.Host{}.Find(vendor, device)
}

func openKernel(address string, o VFIOOptions, onEnd func()) (*kernelFunction, error) {
	dev, err := vfio.Host{}.Open(address, vfio.Interface(o.Interface))
	if err != nil {
		return nil, err
	}
	return startKernel(dev, !o.NoMap, onEnd)
}

// startKernel takes over dev.
func startKernel(dev kernelDevice, mapped bool, onEnd func()) (*kernelFunction, error) {
	k := &kernelFunction{dev: dev, onEnd: onEnd, done: make(chan struct{})}
	for i := range k.events {
		k.events[i] = -1
	}
	err := k.inspect(mapped)
	if err == nil {
		err = k.listen()
	}
	if err != nil {
		k.release()
		return nil, err
	}
	go k.watch()
	return k, nil
}

// inspect checks that the function has what a card needs.
func (k *kernelFunction) inspect(mapped bool) (err error) {
	if k.config, err = k.dev.Region(vfio.RegionConfig); err != nil {
		return err
	}
	if k.bar, err = k.dev.OpenBAR(vfio.RegionBAR0, mapped); err != nil {
		return err
	}
	n, err := k.dev.Interrupts(vfio.IRQMSIX)
	if err != nil {
		return err
	}
	if !k.dev.CanReset() || k.bar.Size < abi.BarSize(1) || n < vectors {
		return fmt.Errorf("function has %#x bytes in BAR 0, %d vectors, own reset %t: %w", k.bar.Size, n, k.dev.CanReset(), errNoCard)
	}
	return nil
}

// listen sets up the events that end the transport.
func (k *kernelFunction) listen() (err error) {
	for i := range k.events {
		if k.events[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			k.events[i] = -1
			return fmt.Errorf("eventfd: %w", err)
		}
	}
	if err := k.dev.SetEvents(vfio.IRQRequest, k.events[endUnplug:endUnplug+1]); err != nil {
		return err
	}
	// Only a PCI Express function can tell of errors.
	if n, err := k.dev.Interrupts(vfio.IRQError); err == nil && n > 0 {
		return k.dev.SetEvents(vfio.IRQError, k.events[endError:endError+1])
	}
	return nil
}

func (k *kernelFunction) ReadConfig(off uint64, b []byte) error {
	return k.use(func() error { return k.dev.ReadRegion(k.config, off, b) })
}

func (k *kernelFunction) WriteConfig(off uint64, b []byte) error {
	return k.use(func() error { return k.dev.WriteRegion(k.config, off, b) })
}

func (k *kernelFunction) Read(off uint64, b []byte) error {
	return k.use(func() error {
		return eachWord(off, b, func(at uint64, w []byte) error {
			v, err := k.bar.Load(at)
			binary.LittleEndian.PutUint32(w, v)
			return err
		})
	})
}

func (k *kernelFunction) Post(off uint64, b []byte) error {
	return k.use(func() error {
		return eachWord(off, b, func(at uint64, w []byte) error {
			return k.bar.Store(at, binary.LittleEndian.Uint32(w))
		})
	})
}

// eachWord calls f for each word of b. Registers have no other size.
func eachWord(off uint64, b []byte, f func(at uint64, w []byte) error) error {
	if len(b)%4 != 0 {
		return fmt.Errorf("%d bytes of registers: %w", len(b), unix.EINVAL)
	}
	for i := 0; i < len(b); i += 4 {
		if err := f(off+uint64(i), b[i:i+4]); err != nil {
			return err
		}
	}
	return nil
}

func (k *kernelFunction) Map(fd int, iova, size uint64) error {
	return k.change(func() error { return k.dev.MapDMA(fd, iova, size) })
}

func (k *kernelFunction) SetVectors(eventFDs []int) error {
	return k.use(func() error { return k.dev.SetEvents(vfio.IRQMSIX, eventFDs) })
}

func (k *kernelFunction) Reset() error {
	return k.use(k.dev.Reset)
}
