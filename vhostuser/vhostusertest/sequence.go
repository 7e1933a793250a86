// SPDX-License-Identifier: Apache-2.0

package vhostusertest

import (
	"errors"
	"fmt"
	"net"

	vu "hwvtpm/vhostuser"
)

// wantProtocol is what QEMU 11.1.3 accepts if it is offered, of the features
// that this front-end knows.
const wantProtocol uint64 = 1<<vu.ProtocolMQ | 1<<vu.ProtocolLogShmFD | 1<<vu.ProtocolReplyAck |
	1<<vu.ProtocolBackendReq | 1<<vu.ProtocolConfig | 1<<vu.ProtocolInflightShmFD |
	1<<vu.ProtocolResetDevice | 1<<vu.ProtocolStatus | 1<<vu.ProtocolDeviceState

// Realize sends what QEMU sends when the device is created.
func (f *Frontend) Realize() error {
	var err error
	if f.features, err = f.GetFeatures(); err != nil {
		return err
	}
	if err := f.negotiateProtocol(); err != nil {
		return err
	}
	if _, err := f.GetQueueNum(); err != nil {
		return err
	}
	if f.opts.MemSlots {
		if _, err := f.GetMaxMemSlots(); err != nil {
			return err
		}
	}
	if err := f.SetBackendReqFD(f.backend[1]); err != nil {
		return err
	}
	if err := f.SetOwner(); err != nil {
		return err
	}
	if f.features, err = f.GetFeatures(); err != nil {
		return err
	}
	return errors.Join(f.SetVringCall(0, f.Call), f.SetVringErr(0, f.Err))
}

func (f *Frontend) negotiateProtocol() error {
	offered, err := f.GetProtocolFeatures()
	if err != nil {
		return err
	}
	want := wantProtocol
	if f.opts.MemSlots {
		want |= 1 << vu.ProtocolConfigureMemSlots
	}
	f.protocol = offered & want
	return f.SetProtocolFeatures(f.protocol)
}

// Start sends what QEMU sends when the driver sets DRIVER_OK, and later when
// the VM goes on after a stop.
func (f *Frontend) Start() error {
	if f.opts.Packed && f.features&packedBit == 0 {
		return errors.New("vhostusertest: packed rings are not offered")
	}
	steps := []func() error{
		func() error { return f.SetFeatures(f.Accepted()) },
		f.startLog,
		func() error { _, err := f.GetStatus(); return err },
		func() error { return f.SetStatus(8) },
		f.startMemory,
		f.startInflight,
		f.startVring,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (f *Frontend) startMemory() error {
	if !f.opts.MemSlots {
		return f.SetMemTable(f.Region())
	}
	return f.AddMemReg(f.Region())
}

func (f *Frontend) startLog() error {
	if f.Log == nil {
		return nil
	}
	status, err := f.SetLogBase(f.Log.FD, uint64(len(f.Log.Bytes)), 0)
	if err == nil && status != 0 {
		err = fmt.Errorf("%w: SET_LOG_BASE", ErrRefused)
	}
	return err
}

func (f *Frontend) startInflight() (err error) {
	if !f.opts.Inflight {
		return nil
	}
	if f.Area.FD < 0 {
		if f.Area, err = f.GetInflightFD(1, f.opts.QueueSize); err != nil || f.Area.FD < 0 {
			return err
		}
	}
	return f.SetInflightFD(f.Area)
}

func (f *Frontend) startVring() error {
	cfg := f.driver.Config()
	flags, log := uint32(0), uint64(0)
	if f.Log != nil {
		flags, log = 1, cfg.Device-UserBase+GuestBase
	}
	steps := []func() error{
		func() error { return f.SetVringNum(0, uint32(cfg.Size)) },
		func() error { return f.SetVringBase(0, f.base) },
		func() error { return f.SetVringAddr(0, flags, cfg.Desc, cfg.Device, cfg.Driver, log) },
		func() error { return f.SetVringKick(0, f.Kick) },
		func() error { return f.SetVringCall(0, f.Call) },
		func() error { return f.SetVringEnable(0, true) },
		func() error { return f.SetVringCall(0, f.Call) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Stop sends what QEMU sends when a driver is unbound, the VM is reset or
// paused. Afterwards the back-end touches no memory.
func (f *Frontend) Stop() error {
	if err := f.SetVringEnable(0, false); err != nil {
		return err
	}
	base, err := f.GetVringBase(0)
	if err != nil {
		return err
	}
	f.base = base
	if f.opts.MemSlots {
		return f.RemMemReg(f.Region())
	}
	return nil
}

// Continue starts the queue where Stop left it, as after stop and cont.
func (f *Frontend) Continue() error { return f.Start() }

// Restart stops the queue and starts a fresh one, as when a guest's driver is
// unbound and bound, or the guest reboots.
func (f *Frontend) Restart() error {
	if err := f.Stop(); err != nil {
		return err
	}
	f.newDriver(0)
	return f.Start()
}

// Replug makes another device on the same connection, as QEMU's device_del and
// device_add do: there is no message for the first device's end.
func (f *Frontend) Replug() error {
	f.newDriver(0)
	return errors.Join(f.Realize(), f.Start())
}

// Reconnect goes on with the same guest on a new connection, as QEMU does when
// its back-end was restarted. The queue continues at what was used so far,
// since the old back-end can no longer be asked.
func (f *Frontend) Reconnect(path string) error {
	_ = f.Sock.Close()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("vhostusertest: %w", err)
	}
	f.Sock = c
	f.base = f.place()
	return errors.Join(f.Realize(), f.Start())
}

// place is the vring base at which nothing is in flight.
func (f *Frontend) place() uint32 {
	if !f.opts.Packed {
		return uint32(f.driver.UsedIdx())
	}
	slot, wrap := f.driver.NextSlot()
	at := uint32(slot)
	if wrap {
		at |= 1 << 15
	}
	return at | at<<16
}
