// SPDX-License-Identifier: Apache-2.0

package board

import "hwvtpm/coproc/abi"

// firmwareVersion is 0x00MMmmpp.
const firmwareVersion = 0x000100

// runAdmin executes the next submission of the admin queue.
func (c *Card) runAdmin() {
	var buf [abi.MaxPayload]byte
	e, payload, ok := c.take(&c.admin, buf[:])
	if !ok {
		return
	}
	var answer []byte
	status := abi.StatusBadField
	switch e.Op {
	case abi.OpCardIdentify:
		if len(payload) == 0 {
			status = abi.StatusOK
			answer = abi.AppendCardIdentity(nil, &abi.CardIdentity{
				Min: abi.MinVersion, Max: abi.Version, Slots: slots,
				MaxPayload: abi.MaxPayload, Firmware: firmwareVersion,
			})
		}
	case abi.OpQueueCreate:
		status = c.createQueue(e.Slot, payload)
	case abi.OpQueueDelete:
		status = c.deleteQueue(e.Slot, payload)
	default:
		status = abi.StatusBadOpcode
	}
	c.complete(&c.admin, &e, status, 0, answer)
}

func (c *Card) createQueue(slot uint32, payload []byte) abi.Status {
	if slot >= slots {
		return abi.StatusNoSlot
	}
	cfg, err := abi.ParseQueueConfig(payload)
	if err != nil || cfg.Vector >= vectors {
		return abi.StatusBadField
	}
	if c.slot.queue.state.Life != abi.QueueNone {
		return abi.StatusInUse
	}
	c.slot.queue = newQueue(uint16(1+slot), cfg)
	return abi.StatusOK
}

func (c *Card) deleteQueue(slot uint32, payload []byte) abi.Status {
	switch {
	case slot >= slots:
		return abi.StatusNoSlot
	case len(payload) != 0:
		return abi.StatusBadField
	}
	c.endSlot() // none is no error: so a driver can begin with it
	return abi.StatusOK
}
