// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"fmt"
	"slices"
)

// Info asks what the device is.
func (c *Client) Info() (DeviceInfo, error) {
	body, err := c.call(CmdGetInfo, DeviceInfo{}.append(nil), nil)
	if err != nil {
		return DeviceInfo{}, err
	}
	return parseDeviceInfo(body)
}

// RegionInfo asks about a region.
func (c *Client) RegionInfo(index uint32) (RegionInfo, error) {
	body, err := c.call(CmdGetRegionInfo, RegionInfo{Index: index}.append(nil), nil)
	if err != nil {
		return RegionInfo{}, err
	}
	return parseRegionInfo(body)
}

// IRQInfo asks about a type of interrupt.
func (c *Client) IRQInfo(index uint32) (IRQInfo, error) {
	body, err := c.call(CmdGetIRQInfo, IRQInfo{Index: index}.append(nil), nil)
	if err != nil {
		return IRQInfo{}, err
	}
	return parseIRQInfo(body)
}

// MapDMA lets the device use a part of the file fd, which stays the caller's.
func (c *Client) MapDMA(m DMAMap, fd int) error {
	_, err := c.call(CmdDMAMap, m.append(nil), nil, fd)
	return err
}

// UnmapDMA takes a range back. When it returns the device does not use it.
func (c *Client) UnmapDMA(address, size uint64) error {
	_, err := c.call(CmdDMAUnmap, DMAUnmap{Address: address, Size: size}.append(nil), nil)
	return err
}

// SetVectors makes eventfds, which stay the caller's, the MSI-X vectors from
// the first on. They go in as many messages as it takes.
func (c *Client) SetVectors(eventFDs []int) error {
	start := 0
	for part := range slices.Chunk(eventFDs, c.maxFDs) {
		set := irqSet{flags: irqDataEventFD | irqActionTrigger, index: IRQMSIX, start: uint32(start), count: uint32(len(part))}
		if _, err := c.call(CmdSetIRQs, set.append(nil), nil, part...); err != nil {
			return err
		}
		start += len(part)
	}
	return nil
}

// Read fills b from a region.
func (c *Client) Read(region uint32, off uint64, b []byte) error {
	a := access{offset: off, region: region, count: uint32(len(b))}
	body, err := c.call(CmdRegionRead, a.append(nil), nil)
	if err != nil {
		return err
	}
	got, data, err := parseAccess(body)
	if err != nil {
		return err
	}
	if got != a || len(data) != len(b) {
		return fmt.Errorf("%d bytes of %+v instead of %+v: %w", len(data), got, a, ErrProtocol)
	}
	copy(b, data)
	return nil
}

// Write writes b to a region and waits for the device to take it.
func (c *Client) Write(region uint32, off uint64, b []byte) error {
	_, err := c.call(CmdRegionWrite, access{offset: off, region: region, count: uint32(len(b))}.append(nil), b)
	return err
}

// Post writes b to a region and does not wait: there is no answer, not even to
// tell of an error. It keeps its place among the other commands.
func (c *Client) Post(region uint32, off uint64, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.send(CmdRegionWrite, flagNoReply, access{offset: off, region: region, count: uint32(len(b))}.append(nil), b)
}

// Reset resets the function.
func (c *Client) Reset() error {
	_, err := c.call(CmdReset, nil, nil)
	return err
}
