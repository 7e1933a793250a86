// SPDX-License-Identifier: Apache-2.0

package vhostusertest

import (
	"fmt"

	vu "hwvtpm/vhostuser"
)

// NoFD is the invalid-descriptor flag of SET_VRING_KICK, _CALL and _ERR.
const NoFD = 0x100

// U64, State, Addr and the other functions with capitals here encode payloads.

// U64 encodes a single integer.
func U64(v uint64) []byte { return order.AppendUint64(nil, v) }

// State encodes a vring state description.
func State(index, num uint32) []byte {
	return order.AppendUint32(order.AppendUint32(nil, index), num)
}

// Addr encodes a vring address description.
func Addr(index, flags uint32, desc, used, avail, log uint64) []byte {
	b := State(index, flags)
	for _, v := range []uint64{desc, used, avail, log} {
		b = order.AppendUint64(b, v)
	}
	return b
}

// Region describes guest memory: Size bytes at Offset of the descriptor FD.
type Region struct {
	GPA, Size, User, Offset uint64
	FD                      int
}

func (r Region) append(b []byte) []byte {
	for _, v := range []uint64{r.GPA, r.Size, r.User, r.Offset} {
		b = order.AppendUint64(b, v)
	}
	return b
}

// MemTable encodes a memory regions description, and collects descriptors.
func MemTable(regions ...Region) (body []byte, fds []int) {
	body = State(uint32(len(regions)), 0)
	for _, r := range regions {
		body, fds = r.append(body), append(fds, r.FD)
	}
	return body, fds
}

// SingleRegion encodes a single memory region description.
func SingleRegion(r Region) []byte { return r.append(U64(0)) }

// ConfigAccess encodes an access to config space.
func ConfigAccess(off, flags uint32, data []byte) []byte {
	b := order.AppendUint32(State(off, uint32(len(data))), flags)
	return append(b, data...)
}

// Inflight describes an in-flight area.
type Inflight struct {
	Size, Offset      uint64
	Queues, QueueSize uint16
	FD                int
}

func (d Inflight) encode() []byte {
	b := order.AppendUint64(U64(d.Size), d.Offset)
	return order.AppendUint16(order.AppendUint16(b, d.Queues), d.QueueSize)
}

// GetFeatures asks for the offered virtio features.
func (c *Conn) GetFeatures() (uint64, error) { return c.CallU64(vu.GetFeatures, nil) }

// SetFeatures accepts virtio features.
func (c *Conn) SetFeatures(v uint64) error { return c.Send(vu.SetFeatures, Version, U64(v)) }

// GetProtocolFeatures asks for the offered protocol features.
func (c *Conn) GetProtocolFeatures() (uint64, error) { return c.CallU64(vu.GetProtocolFeatures, nil) }

// SetProtocolFeatures accepts protocol features.
func (c *Conn) SetProtocolFeatures(v uint64) error {
	return c.Send(vu.SetProtocolFeatures, Version, U64(v))
}

// SetOwner opens the session.
func (c *Conn) SetOwner() error { return c.Send(vu.SetOwner, Version, nil) }

// GetQueueNum asks for the number of queues.
func (c *Conn) GetQueueNum() (uint64, error) { return c.CallU64(vu.GetQueueNum, nil) }

// SetBackendReqFD gives the back-end a channel of its own.
func (c *Conn) SetBackendReqFD(fd int) error { return c.Ack(vu.SetBackendReqFD, nil, fd) }

// SetMemTable sets all guest memory.
func (c *Conn) SetMemTable(regions ...Region) error {
	body, fds := MemTable(regions...)
	return c.Ack(vu.SetMemTable, body, fds...)
}

// GetMaxMemSlots asks how many regions ADD_MEM_REG may add.
func (c *Conn) GetMaxMemSlots() (uint64, error) { return c.CallU64(vu.GetMaxMemSlots, nil) }

// AddMemReg adds one region.
func (c *Conn) AddMemReg(r Region) error { return c.Ack(vu.AddMemReg, SingleRegion(r), r.FD) }

// RemMemReg removes one region.
func (c *Conn) RemMemReg(r Region) error { return c.Ack(vu.RemMemReg, SingleRegion(r)) }

// SetLogBase gives the dirty log; the answer is the back-end's status.
func (c *Conn) SetLogBase(fd int, size, offset uint64) (uint64, error) {
	return c.CallU64(vu.SetLogBase, order.AppendUint64(U64(size), offset), fd)
}

// SetVringNum sets a queue's size.
func (c *Conn) SetVringNum(index, n uint32) error {
	return c.Send(vu.SetVringNum, Version, State(index, n))
}

// SetVringBase sets where a queue starts.
func (c *Conn) SetVringBase(index, base uint32) error {
	return c.Send(vu.SetVringBase, Version, State(index, base))
}

// SetVringAddr sets where a queue lies, in user addresses.
func (c *Conn) SetVringAddr(index, flags uint32, desc, used, avail, log uint64) error {
	return c.Send(vu.SetVringAddr, Version, Addr(index, flags, desc, used, avail, log))
}

// GetVringBase stops a queue.
func (c *Conn) GetVringBase(index uint32) (uint32, error) {
	m, err := c.Call(vu.GetVringBase, State(index, 0))
	if err != nil {
		return 0, err
	}
	if len(m.Body) != 8 || order.Uint32(m.Body) != index {
		return 0, fmt.Errorf("vhostusertest: vring base reply %x", m.Body)
	}
	return order.Uint32(m.Body[4:]), nil
}

// SetVringKick, SetVringCall and SetVringErr give a queue its eventfds.
func (c *Conn) SetVringKick(index uint64, fd int) error {
	return c.Ack(vu.SetVringKick, U64(index), fd)
}

// SetVringCall sets the eventfd for used buffers.
func (c *Conn) SetVringCall(index uint64, fd int) error {
	return c.Ack(vu.SetVringCall, U64(index), fd)
}

// SetVringErr sets the eventfd for broken rings.
func (c *Conn) SetVringErr(index uint64, fd int) error {
	return c.Ack(vu.SetVringErr, U64(index), fd)
}

// SetVringEnable enables or disables a queue.
func (c *Conn) SetVringEnable(index uint32, on bool) error {
	num := uint32(0)
	if on {
		num = 1
	}
	return c.Ack(vu.SetVringEnable, State(index, num))
}

// GetConfig reads n bytes of config space.
func (c *Conn) GetConfig(off, n uint32) ([]byte, error) {
	m, err := c.Call(vu.GetConfig, ConfigAccess(off, 0, make([]byte, n)))
	if err != nil {
		return nil, err
	}
	if len(m.Body) == 0 {
		return nil, fmt.Errorf("%w: GET_CONFIG", ErrRefused)
	}
	if want := ConfigAccess(off, 0, make([]byte, n)); len(m.Body) != len(want) || string(m.Body[:12]) != string(want[:12]) {
		return nil, fmt.Errorf("vhostusertest: config reply %x", m.Body)
	}
	return m.Body[12:], nil
}

// SetConfig writes config space as a driver's write.
func (c *Conn) SetConfig(off uint32, data []byte) error {
	return c.Ack(vu.SetConfig, ConfigAccess(off, 0, data))
}

// GetStatus reads the device status.
func (c *Conn) GetStatus() (uint64, error) { return c.CallU64(vu.GetStatus, nil) }

// SetStatus sets the device status.
func (c *Conn) SetStatus(v uint64) error { return c.Send(vu.SetStatus, Version, U64(v)) }

// ResetDevice resets the device.
func (c *Conn) ResetDevice() error { return c.Ack(vu.ResetDevice, nil) }

// GetInflightFD asks for an in-flight area; its FD is the caller's, -1 if the
// back-end declined.
func (c *Conn) GetInflightFD(queues, size uint16) (Inflight, error) {
	m, err := c.Call(vu.GetInflightFD, Inflight{Queues: queues, QueueSize: size}.encode())
	if err != nil {
		return Inflight{}, err
	}
	if len(m.Body) < 20 {
		return Inflight{}, fmt.Errorf("vhostusertest: in-flight reply %x", m.Body)
	}
	d := Inflight{order.Uint64(m.Body), order.Uint64(m.Body[8:]), order.Uint16(m.Body[16:]), order.Uint16(m.Body[18:]), -1}
	if len(m.FDs) == 1 {
		d.FD = m.FDs[0]
	}
	return d, nil
}

// SetInflightFD gives an in-flight area back.
func (c *Conn) SetInflightFD(d Inflight) error { return c.Ack(vu.SetInflightFD, d.encode(), d.FD) }

// SetDeviceStateFD starts a transfer of the device's state over fd; direction
// 0 saves, 1 loads. The answer is the back-end's status.
func (c *Conn) SetDeviceStateFD(direction, phase uint32, fd int) (uint64, error) {
	return c.CallU64(vu.SetDeviceStateFD, State(direction, phase), fd)
}

// CheckDeviceState asks how the transfer ended; 0 is well.
func (c *Conn) CheckDeviceState() (uint64, error) { return c.CallU64(vu.CheckDeviceState, nil) }
