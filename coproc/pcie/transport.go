// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"fmt"
	"net"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
	"hwvtpm/coproc/internal/slot"
)

// Transport reaches one PCI function. Its methods may be called from any
// goroutine.
type Transport interface {
	// ReadConfig and WriteConfig access the configuration space.
	ReadConfig(off uint64, b []byte) error
	WriteConfig(off uint64, b []byte) error

	// Read accesses BAR 0. Post writes to it and may return before the card
	// has seen it; the order of accesses is kept.
	Read(off uint64, b []byte) error
	Post(off uint64, b []byte) error

	// Map lets the card read and write a whole file of so many bytes.
	Map(fd int, iova, size uint64) error

	// SetVectors makes eventfds the MSI-X vectors from the first on.
	SetVectors(eventFDs []int) error

	// Reset is a function reset. The card uses no memory when it returns.
	Reset() error

	// Err is not nil once the function is gone for good.
	Err() error

	// Close ends the use of the function, and of all memory. It is
	// idempotent.
	Close() error
}

// Opener opens a Transport. onEnd must be called once when the function is
// gone, after Err says so, and Close must wait for that call.
type Opener func(onEnd func()) (Transport, error)

// VFIOUser opens the function that is served on the UNIX socket at path.
// timeout bounds each message; zero is 10 s.
func VFIOUser(path string, timeout time.Duration) Opener {
	timeout = slot.OrDefault(timeout, 10*time.Second)
	return func(onEnd func()) (Transport, error) {
		sock, err := net.DialTimeout("unix", path, timeout)
		if err != nil {
			return nil, err
		}
		c, err := vfiouser.NewClient(sock.(*net.UnixConn), timeout, onEnd)
		if err != nil {
			return nil, err
		}
		u := user{c}
		if err := u.check(); err != nil {
			u.Close()
			return nil, err
		}
		return u, nil
	}
}

// user is a function behind vfio-user.
type user struct{ *vfiouser.Client }

// check asks whether the device has what a card needs.
func (u user) check() error {
	info, err := u.Info()
	if err != nil {
		return err
	}
	bar, err := u.RegionInfo(vfiouser.RegionBAR0)
	if err != nil {
		return err
	}
	irq, err := u.IRQInfo(vfiouser.IRQMSIX)
	if err != nil {
		return err
	}
	if info.Flags&vfiouser.DevicePCI == 0 || bar.Size < abi.BarSize(1) || irq.Count < vectors {
		return fmt.Errorf("device has flags %#x, %#x bytes in BAR 0 and %d vectors: %w", info.Flags, bar.Size, irq.Count, errNoCard)
	}
	return nil
}

func (u user) ReadConfig(off uint64, b []byte) error {
	return u.Client.Read(vfiouser.RegionConfig, off, b)
}

func (u user) WriteConfig(off uint64, b []byte) error {
	return u.Client.Write(vfiouser.RegionConfig, off, b)
}

func (u user) Read(off uint64, b []byte) error { return u.Client.Read(vfiouser.RegionBAR0, off, b) }

func (u user) Post(off uint64, b []byte) error { return u.Client.Post(vfiouser.RegionBAR0, off, b) }

func (u user) Map(fd int, iova, size uint64) error {
	return u.MapDMA(vfiouser.DMAMap{Flags: vfiouser.DMARead | vfiouser.DMAWrite, Address: iova, Size: size}, fd)
}
