// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Versions of the protocol: major 0, and the highest minor spoken here.
const (
	versionMajor = 0
	versionMinor = 1
	versionSize  = 4
)

// version is the payload of VERSION (spec, "VFIO_USER_VERSION").
//
//	 0                2                4
//	+----------------+----------------+----------------------------------+
//	| major          | minor          | JSON and NUL, or nothing          |
//	+----------------+----------------+----------------------------------+
type version struct {
	major, minor uint16
	maxFDs       int // descriptors that the sender takes in a message
	maxTransfer  int // bytes of data that it takes in a message
}

// versionData is the JSON of a version. Unknown capabilities are left out of
// the answer, which declines them.
type versionData struct {
	Capabilities struct {
		MaxMsgFDs       *int `json:"max_msg_fds,omitempty"`
		MaxDataXferSize *int `json:"max_data_xfer_size,omitempty"`
	} `json:"capabilities"`
}

// Defaults of the spec for what the sender did not say.
const (
	defaultMaxFDs      = 1
	defaultMaxTransfer = 1 << 20
)

func (v version) append(dst []byte) []byte {
	dst = order.AppendUint16(dst, v.major)
	dst = order.AppendUint16(dst, v.minor)
	return fmt.Appendf(dst, `{"capabilities":{"max_msg_fds":%d,"max_data_xfer_size":%d}}`+"\x00", v.maxFDs, v.maxTransfer)
}

func parseVersion(b []byte) (version, error) {
	if len(b) < versionSize {
		return version{}, fmt.Errorf("version: %w", ErrProtocol)
	}
	v := version{
		major: order.Uint16(b), minor: order.Uint16(b[2:]),
		maxFDs: defaultMaxFDs, maxTransfer: defaultMaxTransfer,
	}
	text, rest, terminated := bytes.Cut(b[versionSize:], []byte{0})
	if len(b) == versionSize {
		return v, nil
	}
	if !terminated || len(rest) != 0 {
		return version{}, fmt.Errorf("version data does not end with NUL: %w", ErrProtocol)
	}
	var data versionData
	if err := json.Unmarshal(text, &data); err != nil {
		return version{}, fmt.Errorf("version data: %w: %w", ErrProtocol, err)
	}
	for _, f := range []struct {
		said *int
		to   *int
	}{{data.Capabilities.MaxMsgFDs, &v.maxFDs}, {data.Capabilities.MaxDataXferSize, &v.maxTransfer}} {
		if f.said == nil {
			continue
		}
		if *f.said < 1 {
			return version{}, fmt.Errorf("version data: limit %d: %w", *f.said, ErrProtocol)
		}
		*f.to = *f.said
	}
	return v, nil
}
