// SPDX-License-Identifier: Apache-2.0

package vhostuser

import "fmt"

// Request is a front-end message type (vhost-user spec, "Front-end message
// types"). Only the types that this back-end serves have a name here; all
// others are answered as unknown.
type Request uint32

// Front-end message types. The comment gives payload -> own reply.
const (
	GetFeatures         Request = 1  // - -> u64
	SetFeatures         Request = 2  // u64
	SetOwner            Request = 3  // -
	ResetOwner          Request = 4  // - (deprecated, ignored as the spec recommends)
	SetMemTable         Request = 5  // memory regions, one fd each
	SetLogBase          Request = 6  // log description, one fd -> u64
	SetLogFD            Request = 7  // one fd
	SetVringNum         Request = 8  // vring state
	SetVringAddr        Request = 9  // vring address
	SetVringBase        Request = 10 // vring state
	GetVringBase        Request = 11 // vring state -> vring state
	SetVringKick        Request = 12 // u64, at most one fd
	SetVringCall        Request = 13 // u64, at most one fd
	SetVringErr         Request = 14 // u64, at most one fd
	GetProtocolFeatures Request = 15 // - -> u64
	SetProtocolFeatures Request = 16 // u64
	GetQueueNum         Request = 17 // - -> u64
	SetVringEnable      Request = 18 // vring state
	SetBackendReqFD     Request = 21 // -, one fd
	GetConfig           Request = 24 // config space -> config space
	SetConfig           Request = 25 // config space
	GetInflightFD       Request = 31 // inflight description -> same, one fd
	SetInflightFD       Request = 32 // inflight description, one fd
	ResetDevice         Request = 34 // -
	GetMaxMemSlots      Request = 36 // - -> u64
	AddMemReg           Request = 37 // single memory region, one fd
	RemMemReg           Request = 38 // single memory region
	SetStatus           Request = 39 // u64
	GetStatus           Request = 40 // - -> u64
	SetDeviceStateFD    Request = 42 // transfer parameters, one fd -> u64
	CheckDeviceState    Request = 43 // - -> u64
)

// backendConfigChange is VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, the only
// message this back-end starts by itself ("Back-end message types").
const backendConfigChange Request = 2

// String gives the name of the spec without its VHOST_USER_ prefix.
func (r Request) String() string {
	if rule, ok := guards[r]; ok {
		return rule.name
	}
	return fmt.Sprintf("request %d", uint32(r))
}

// Header flags ("Message Specification", "Header").
const (
	flagVersion     = 0x1
	flagVersionMask = 0x3
	flagReply       = 0x4
	flagNeedReply   = 0x8
)

// Virtio feature bits that belong to the transport and not to a device type.
const (
	// FeatureLogAll is VHOST_F_LOG_ALL: writes are marked in the dirty log.
	FeatureLogAll = 26
	// FeatureProtocolFeatures is VHOST_USER_F_PROTOCOL_FEATURES.
	FeatureProtocolFeatures = 30
)

// Protocol features, as bit numbers ("Protocol features").
const (
	ProtocolMQ                = 0
	ProtocolLogShmFD          = 1
	ProtocolReplyAck          = 3
	ProtocolBackendReq        = 5
	ProtocolConfig            = 9
	ProtocolInflightShmFD     = 12
	ProtocolResetDevice       = 13
	ProtocolConfigureMemSlots = 15
	ProtocolStatus            = 16
	ProtocolDeviceState       = 19
)

// supportedProtocol is what a back-end of this package can offer.
const supportedProtocol uint64 = 1<<ProtocolMQ | 1<<ProtocolLogShmFD | 1<<ProtocolReplyAck |
	1<<ProtocolBackendReq | 1<<ProtocolConfig | 1<<ProtocolInflightShmFD |
	1<<ProtocolResetDevice | 1<<ProtocolConfigureMemSlots | 1<<ProtocolStatus | 1<<ProtocolDeviceState

// Limits. The front-end is not trusted, so every size it controls has one.
const (
	// maxBody bounds a message body. The largest legal one is far smaller
	// (a config space access of 268 bytes); 4 KiB is what other back-ends
	// allow and leaves room for a protocol that grows.
	maxBody = 4096
	// maxFDs is how many descriptors are received at most with a message.
	// SET_MEM_TABLE needs the most, one for each of its regions.
	maxFDs = maxTableRegions
	// maxTableRegions is the fixed size of the SET_MEM_TABLE array.
	maxTableRegions = 8
	// maxMemSlots is the answer to GET_MAX_MEM_SLOTS. QEMU exposes at most
	// 509 slots on x86; a device with one small queue profits from few.
	maxMemSlots = 64
	// maxConfigSize is VHOST_USER_MAX_CONFIG_SIZE, the whole config space.
	maxConfigSize = 256
	// maxQueues follows from the eight index bits of SET_VRING_KICK.
	maxQueues = 256
)

// Bits of the u64 of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
const (
	vringIndexMask = 0xff
	vringNoFD      = 0x100
)

// vringFlagLog is VHOST_VRING_F_LOG in a vring address description.
const vringFlagLog = 0x1

// configFlagMigration marks a SET_CONFIG that carries migrated state.
const configFlagMigration = 1
