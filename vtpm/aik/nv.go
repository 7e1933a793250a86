// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// NV indices of "TCG EK Credential Profile for TPM Family 2.0", 2.2.1.4 and 2.2.1.5.
const (
	firstIndex tpm2.TPMHandle = 0x01c00000
	firstChain tpm2.TPMHandle = 0x01c00100
	lastChain  tpm2.TPMHandle = 0x01c001ff
)

const (
	nvChunk  = 512      // what every PC's TPM gives at once (PC Client PTP, TPM_PT_NV_BUFFER_MAX)
	maxIndex = 8 << 10  // bytes of one index that are read
	maxChain = 64 << 10 // bytes of all certificates of a chain
)

// endorsementIndices lists what there is of the profile's indices, in order.
func endorsementIndices(t *lane) ([]tpm2.TPMHandle, error) {
	return handles(t, firstIndex, lastChain)
}

// handles lists the TPM's handles from first to last.
func handles(t *lane, first, last tpm2.TPMHandle) ([]tpm2.TPMHandle, error) {
	var all []tpm2.TPMHandle
	for {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(first), PropertyCount: 254}.Execute(t)
		if err != nil {
			return nil, tpmError("list handles", err)
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, tpmError("list handles", err)
		}
		for _, h := range list.Handle {
			if h < first {
				return nil, fmt.Errorf("%w: handles are in no order", ErrTPM)
			}
			if h > last {
				return all, nil
			}
			all, first = append(all, h), h+1
		}
		if !rsp.MoreData || len(list.Handle) == 0 {
			return all, nil
		}
	}
}

// readNV reads an index that anybody may read by its own, empty, authorization, or
// the owner by its.
func (h *Host) readNV(t *lane, index tpm2.TPMHandle) ([]byte, error) {
	what := fmt.Sprintf("read NV index %#08x", uint32(index))
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return nil, tpmError(what, err)
	}
	area, err := public.NVPublic.Contents()
	if err != nil {
		return nil, tpmError(what, err)
	}
	if area.DataSize > maxIndex {
		return nil, fmt.Errorf("%w: NV index %#08x has %d bytes", ErrTPM, uint32(index), area.DataSize)
	}
	by := tpm2.AuthHandle{Handle: index, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)}
	if !area.Attributes.AuthRead {
		owner, done, err := authorize(t, tpm2.TPMRHOwner, h.opts.OwnerAuth)
		if err != nil {
			return nil, err
		}
		defer done()
		by = owner
	}
	var data []byte
	for len(data) < int(area.DataSize) {
		rsp, err := tpm2.NVRead{
			AuthHandle: by, NVIndex: tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size: min(nvChunk, area.DataSize-uint16(len(data))), Offset: uint16(len(data)),
		}.Execute(t)
		if err != nil {
			return nil, tpmError(what, err)
		}
		if len(rsp.Data.Buffer) == 0 {
			return nil, fmt.Errorf("%w: %s: nothing came", ErrTPM, what)
		}
		data = append(data, rsp.Data.Buffer...)
	}
	return data, nil
}

// storedHeader is in front of a certificate in the style of the TPM 1.2 profile,
// which some makers kept: TCG_PCCLIENT_STORED_CERT with a full certificate.
//
//	 0      2      3        5      7
//	+------+------+--------+------+-----------+
//	| 1001 | 00   | size   | 1002 | DER ...   |
//	+------+------+--------+------+-----------+
const storedHeader = 7

// cutDER takes one certificate from the front of what an index has: what follows may
// be another one, or padding.
func cutDER(b []byte) (der, rest []byte, err error) {
	if len(b) > storedHeader && binary.BigEndian.Uint16(b) == 0x1001 && b[2] == 0 && binary.BigEndian.Uint16(b[5:]) == 0x1002 {
		b = b[storedHeader:]
	}
	// A SEQUENCE of 256 bytes to 64 KiB, or of 128 to 255: X.690, 8.1.3.5.
	size := 0
	switch {
	case len(b) > 4 && b[0] == 0x30 && b[1] == 0x82:
		size = 4 + int(binary.BigEndian.Uint16(b[2:]))
	case len(b) > 3 && b[0] == 0x30 && b[1] == 0x81:
		size = 3 + int(b[2])
	}
	if size == 0 || size > len(b) {
		return nil, nil, errors.New("no certificate")
	}
	return b[:size], b[size:], nil
}
