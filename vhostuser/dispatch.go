// SPDX-License-Identifier: Apache-2.0

package vhostuser

// dispatch calls the handler of a message that check has let through.
func (s *session) dispatch(m *message) (reply, error) {
	switch m.request {
	case GetFeatures:
		return replyU64(s.cfg.offeredFeatures()), nil
	case SetFeatures:
		return reply{}, s.setFeatures(m)
	case GetProtocolFeatures:
		return replyU64(s.cfg.offeredProtocol()), nil
	case SetProtocolFeatures:
		return reply{}, s.setProtocolFeatures(m)
	case SetOwner:
		s.setOwner()
		return reply{}, nil
	case ResetOwner:
		return reply{}, nil
	case GetQueueNum:
		return replyU64(uint64(len(s.vrings))), nil

	case SetMemTable:
		return reply{}, s.setMemTable(m)
	case GetMaxMemSlots:
		return replyU64(maxMemSlots), nil
	case AddMemReg:
		return reply{}, s.addMemReg(m)
	case RemMemReg:
		return reply{}, s.remMemReg(m)
	case SetLogBase:
		return s.setLogBase(m)
	case SetLogFD:
		return reply{}, nil // see doc.go: accepted, never signalled

	case SetVringNum:
		return reply{}, s.setVringNum(m)
	case SetVringAddr:
		return reply{}, s.setVringAddr(m)
	case SetVringBase:
		return reply{}, s.setVringBase(m)
	case GetVringBase:
		return s.getVringBase(m)
	case SetVringKick:
		return reply{}, s.setVringKick(m)
	case SetVringCall:
		return reply{}, s.setVringCall(m)
	case SetVringErr:
		return reply{}, s.setVringErr(m)
	case SetVringEnable:
		return reply{}, s.setVringEnable(m)
	}
	return s.dispatchDevice(m)
}

// dispatchDevice is the second half of dispatch: what concerns the device as
// a whole and not its rings.
func (s *session) dispatchDevice(m *message) (reply, error) {
	switch m.request {
	case SetBackendReqFD:
		return reply{}, s.setBackendReqFD(m)
	case GetConfig:
		return s.getConfig(m)
	case SetConfig:
		return reply{}, s.setConfig(m)
	case ResetDevice:
		return reply{}, s.resetDevice()
	case SetStatus:
		return reply{}, s.setStatus(m)
	case GetStatus:
		return replyU64(s.status), nil
	case GetInflightFD:
		return s.getInflightFD(m)
	case SetInflightFD:
		return reply{}, s.setInflightFD(m)
	case SetDeviceStateFD:
		return s.setDeviceStateFD(m)
	case CheckDeviceState:
		return s.checkDeviceState()
	}
	return reply{}, ErrUnknownRequest
}
