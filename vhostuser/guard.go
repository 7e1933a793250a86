// SPDX-License-Identifier: Apache-2.0

package vhostuser

import "fmt"

// rule is what must hold for a message before its handler sees it: syntax
// only. What the numbers in it mean is the handler's business.
type rule struct {
	name           string
	minLen, maxLen int  // payload bytes
	minFDs, maxFDs int  // descriptors
	protocol       int8 // protocol feature bit that must be acked, or anyTime
	ownReply       bool // has a reply of its own, so REPLY_ACK changes nothing
}

const anyTime = -1

// guards is the one table of legal messages. A request that is missing here
// is unknown.
var guards = map[Request]rule{
	GetFeatures:         {name: "GET_FEATURES", protocol: anyTime, ownReply: true},
	SetFeatures:         {name: "SET_FEATURES", minLen: 8, maxLen: 8, protocol: anyTime},
	SetOwner:            {name: "SET_OWNER", protocol: anyTime},
	ResetOwner:          {name: "RESET_OWNER", protocol: anyTime},
	SetMemTable:         {name: "SET_MEM_TABLE", minLen: 8 + memRegionSize, maxLen: 8 + maxTableRegions*memRegionSize, minFDs: 1, maxFDs: maxTableRegions, protocol: anyTime},
	SetLogBase:          {name: "SET_LOG_BASE", minLen: 16, maxLen: 16, minFDs: 1, maxFDs: 1, protocol: ProtocolLogShmFD, ownReply: true},
	SetLogFD:            {name: "SET_LOG_FD", maxLen: 8, minFDs: 1, maxFDs: 1, protocol: anyTime},
	SetVringNum:         {name: "SET_VRING_NUM", minLen: 8, maxLen: 8, protocol: anyTime},
	SetVringAddr:        {name: "SET_VRING_ADDR", minLen: vringAddrSize, maxLen: vringAddrSize, protocol: anyTime},
	SetVringBase:        {name: "SET_VRING_BASE", minLen: 8, maxLen: 8, protocol: anyTime},
	GetVringBase:        {name: "GET_VRING_BASE", minLen: 8, maxLen: 8, protocol: anyTime, ownReply: true},
	SetVringKick:        {name: "SET_VRING_KICK", minLen: 8, maxLen: 8, maxFDs: 1, protocol: anyTime},
	SetVringCall:        {name: "SET_VRING_CALL", minLen: 8, maxLen: 8, maxFDs: 1, protocol: anyTime},
	SetVringErr:         {name: "SET_VRING_ERR", minLen: 8, maxLen: 8, maxFDs: 1, protocol: anyTime},
	GetProtocolFeatures: {name: "GET_PROTOCOL_FEATURES", protocol: anyTime, ownReply: true},
	SetProtocolFeatures: {name: "SET_PROTOCOL_FEATURES", minLen: 8, maxLen: 8, protocol: anyTime},
	// The spec asks that MQ was offered for GET_QUEUE_NUM, not that it was accepted.
	GetQueueNum:     {name: "GET_QUEUE_NUM", protocol: anyTime, ownReply: true},
	SetVringEnable:  {name: "SET_VRING_ENABLE", minLen: 8, maxLen: 8, protocol: anyTime},
	SetBackendReqFD: {name: "SET_BACKEND_REQ_FD", maxLen: 8, minFDs: 1, maxFDs: 1, protocol: ProtocolBackendReq},
	GetConfig:       {name: "GET_CONFIG", minLen: configHeader, maxLen: configHeader + maxConfigSize, protocol: ProtocolConfig, ownReply: true},
	SetConfig:       {name: "SET_CONFIG", minLen: configHeader, maxLen: configHeader + maxConfigSize, protocol: ProtocolConfig},
	GetInflightFD:   {name: "GET_INFLIGHT_FD", minLen: inflightDescSize, maxLen: inflightDescSize + 4, protocol: ProtocolInflightShmFD, ownReply: true},
	SetInflightFD:   {name: "SET_INFLIGHT_FD", minLen: inflightDescSize, maxLen: inflightDescSize + 4, minFDs: 1, maxFDs: 1, protocol: ProtocolInflightShmFD},
	ResetDevice:     {name: "RESET_DEVICE", protocol: ProtocolResetDevice},
	GetMaxMemSlots:  {name: "GET_MAX_MEM_SLOTS", protocol: ProtocolConfigureMemSlots, ownReply: true},
	AddMemReg:       {name: "ADD_MEM_REG", minLen: 8 + memRegionSize, maxLen: 8 + memRegionSize, minFDs: 1, maxFDs: 1, protocol: ProtocolConfigureMemSlots},
	// A stray descriptor with REM_MEM_REG is closed unused, as the spec allows.
	RemMemReg:        {name: "REM_MEM_REG", minLen: 8 + memRegionSize, maxLen: 8 + memRegionSize, maxFDs: 1, protocol: ProtocolConfigureMemSlots},
	SetStatus:        {name: "SET_STATUS", minLen: 8, maxLen: 8, protocol: ProtocolStatus},
	GetStatus:        {name: "GET_STATUS", protocol: ProtocolStatus, ownReply: true},
	SetDeviceStateFD: {name: "SET_DEVICE_STATE_FD", minLen: 8, maxLen: 8, minFDs: 1, maxFDs: 1, protocol: ProtocolDeviceState, ownReply: true},
	CheckDeviceState: {name: "CHECK_DEVICE_STATE", protocol: ProtocolDeviceState, ownReply: true},
}

// check applies the rule for m.request. acked is the set of protocol features
// the front-end has accepted.
func check(m *message, acked uint64) error {
	r, ok := guards[m.request]
	switch {
	case !ok:
		return ErrUnknownRequest
	case r.protocol != anyTime && acked&(1<<r.protocol) == 0:
		return fmt.Errorf("protocol feature %d was not negotiated: %w", r.protocol, ErrProtocol)
	case len(m.body) < r.minLen || len(m.body) > r.maxLen:
		return fmt.Errorf("payload of %d bytes, want %d to %d: %w", len(m.body), r.minLen, r.maxLen, ErrProtocol)
	case len(m.fds) < r.minFDs || len(m.fds) > r.maxFDs:
		return fmt.Errorf("%d descriptors, want %d to %d: %w", len(m.fds), r.minFDs, r.maxFDs, ErrProtocol)
	}
	return nil
}
