// SPDX-License-Identifier: Apache-2.0

package emulator

import "encoding/binary"

// order is the byte order of all fields of both channels.
var order = binary.BigEndian

// command is the number of a control request (swtpm, include/swtpm/tpm_ioctl.h).
type command uint32

// The control requests.
const (
	cmdGetCapability       command = 0x01
	cmdInit                command = 0x02
	cmdShutdown            command = 0x03
	cmdGetTPMEstablished   command = 0x04
	cmdSetLocality         command = 0x05
	cmdHashStart           command = 0x06
	cmdHashData            command = 0x07
	cmdHashEnd             command = 0x08
	cmdCancelTPMCmd        command = 0x09
	cmdStoreVolatile       command = 0x0a
	cmdResetTPMEstablished command = 0x0b
	cmdGetStateBlob        command = 0x0c
	cmdSetStateBlob        command = 0x0d
	cmdStop                command = 0x0e
	cmdGetConfig           command = 0x0f
	cmdSetDataFD           command = 0x10
	cmdSetBufferSize       command = 0x11
	cmdGetInfo             command = 0x12
	cmdLockStorage         command = 0x13
)

// Bits of GET_CAPABILITY. A bit that is left out makes QEMU do without the
// request; the request itself is then answered like an unknown one.
const (
	capInit                = 1 << 0
	capShutdown            = 1 << 1
	capGetTPMEstablished   = 1 << 2
	capSetLocality         = 1 << 3
	capHashing             = 1 << 4
	capCancelTPMCmd        = 1 << 5
	capStoreVolatile       = 1 << 6
	capResetTPMEstablished = 1 << 7
	capGetStateBlob        = 1 << 8
	capSetStateBlob        = 1 << 9
	capStop                = 1 << 10
	capGetConfig           = 1 << 11
	capSetDataFD           = 1 << 12
	capSetBufferSize       = 1 << 13
	capGetInfo             = 1 << 14
	capSendCommandHeader   = 1 << 15
	capLockStorage         = 1 << 16

	// capsAlways is what every slot can serve.
	capsAlways = capInit | capShutdown | capGetTPMEstablished | capSetLocality |
		capCancelTPMCmd | capResetTPMEstablished | capStop | capGetConfig |
		capSetDataFD | capSetBufferSize | capGetInfo
	// capsHasher is what a slot that is a coproc.Hasher adds.
	capsHasher = capHashing
	// capsMover is what a slot that is a StateMover adds.
	capsMover = capGetStateBlob | capSetStateBlob | capLockStorage
)

// result is the first word of every answer: a TPM 1.2 return code, as the
// protocol is older than TPM 2.0.
type result uint32

// The results in use (TPM Main Part 2, section 16).
const (
	resOK           result = 0
	resBadParameter result = 0x03
	resFail         result = 0x09
	resBadOrdinal   result = 0x0a
	resSize         result = 0x11
	resIOError      result = 0x1f
	resBadLocality  result = 0x3d
	resRetry        result = 0x800 // there is no such blob
)

const (
	initDeleteVolatile = 1 // flag of INIT: continue from the volatile state that was set

	stateEncrypted     = 2 // flag of a state blob: it is not plaintext
	configMigrationKey = 2 // flag of GET_CONFIG: state blobs leave encrypted

	infoSpecification = 1 // flags of GET_INFO
	infoAttributes    = 2
)

// Buffer sizes in bytes. The smallest is libtpms' own lower limit: the longest
// response there is, a saved context, still fits.
const (
	minBuffer = 2808
	maxBuffer = 4096
)

// maxLocality is the highest one that can be set. Number 4 belongs to the
// processor's dynamic launch and QEMU's devices don't let a guest have it.
const maxLocality = 3

// A request is a command number and a body, and has no length field:
//
//	 0               4
//	+---------------+------------------
//	| command       | body ...
//	+---------------+------------------
//
// Who sends one awaits the answer, so a request is what is there when it is
// read. Its command says how many more bytes are owed.
//
//	GET_CAPABILITY, SHUTDOWN, STOP, CANCEL, ...   body is empty
//	INIT              flags u32
//	SET_LOCALITY      locality u8, 3 bytes of padding or none
//	RESET_TPMEST.     locality u8, 3 bytes of padding or none
//	HASH_DATA         length u32, data
//	GET_STATEBLOB     flags u32, type u32, offset u32
//	SET_STATEBLOB     flags u32, type u32, length u32, data
//	SET_BUFFERSIZE    size u32, 0 asks for the size
//	GET_INFO          flags u64, offset u32, pad u32
//	LOCK_STORAGE      retries u32
//
// An answer is a result, which is all of it unless the result is 0:
//
//	GET_CAPABILITY    result, capabilities u32
//	GET_TPMEST.       result, bit u8, 3 bytes of padding
//	GET_STATEBLOB     result, flags u32, total u32, length u32, data
//	GET_CONFIG        result, flags u32
//	SET_BUFFERSIZE    result, size u32, min u32, max u32
//	GET_INFO          result, total u32, length u32, JSON text, 0
const (
	codeBytes = 4
	// maxBody bounds the body of a request but for the data of a state blob, or of a
	// hash sequence, of which the rest is read later.
	maxBody    = 4 + 4096
	maxRequest = codeBytes + maxBody

	hashDataHead = 4 // of a HASH_DATA's body, in front of the data

	setBlobHead = 12 // of a SET_STATEBLOB's body, in front of the data
	getBlobHead = 16 // of a GET_STATEBLOB's answer
	maxBlob     = 512 << 10
)

// form is the shape of a request.
type form struct {
	owed  int  // body bytes to wait for
	least int  // body bytes without which the request is refused
	exact bool // no more than least, either
	caps  uint32
	power power
}

// power says in which state of the TPM a request is served.
type power uint8

const (
	powerAny power = iota
	powerOn
	powerOff
)

// forms are the requests with the sizes that swtpm demands.
var forms = map[command]form{
	cmdGetCapability:       {},
	cmdInit:                {owed: 4, least: 4, exact: true, caps: capInit},
	cmdShutdown:            {exact: true, caps: capShutdown},
	cmdGetTPMEstablished:   {exact: true, caps: capGetTPMEstablished},
	cmdSetLocality:         {owed: 1, least: 1, caps: capSetLocality},
	cmdCancelTPMCmd:        {exact: true, caps: capCancelTPMCmd, power: powerOn},
	cmdResetTPMEstablished: {owed: 1, least: 1, caps: capResetTPMEstablished, power: powerOn},
	cmdGetStateBlob:        {owed: 12, least: 12, caps: capGetStateBlob, power: powerOn},
	cmdSetStateBlob:        {owed: setBlobHead, least: setBlobHead, caps: capSetStateBlob, power: powerOff},
	cmdStop:                {exact: true, caps: capStop},
	cmdGetConfig:           {exact: true, caps: capGetConfig},
	cmdSetDataFD:           {caps: capSetDataFD},
	cmdSetBufferSize:       {least: 4, caps: capSetBufferSize},
	cmdGetInfo:             {least: 16, caps: capGetInfo},
	cmdLockStorage:         {least: 4, caps: capLockStorage},
	cmdHashStart:           {exact: true, caps: capHashing, power: powerOn},
	cmdHashData:            {owed: hashDataHead, least: hashDataHead, caps: capHashing, power: powerOn},
	cmdHashEnd:             {exact: true, caps: capHashing, power: powerOn},
	// Not served, but known by size: what belongs to it is no new request.
	cmdStoreVolatile: {caps: capStoreVolatile},
}

// owed is how many bytes a request has at least, as far as b, its start,
// tells. Not counted is the data of a state blob or of a hash sequence, which may not
// fit into a request.
func owed(b []byte) int {
	if len(b) < codeBytes {
		return codeBytes
	}
	return codeBytes + forms[command(order.Uint32(b))].owed
}

// admit checks a whole request against its form, in swtpm's order: what the
// server can do, then the TPM's power, then the size.
func admit(c command, body []byte, caps uint32, running bool) result {
	f, known := forms[c]
	switch {
	case !known || f.caps&^caps != 0,
		f.power == powerOn && !running,
		f.power == powerOff && running:
		return resBadOrdinal
	case len(body) < f.least, f.exact && len(body) > f.least:
		return resBadParameter
	}
	return resOK
}

// putResult begins an answer in dst.
func putResult(dst []byte, r result) []byte { return order.AppendUint32(dst[:0], uint32(r)) }
