// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"encoding/json"
	"fmt"
	"strings"

	"hwvtpm/coproc"
)

// tpmInfo is the JSON object of GET_INFO, with the names that swtpm uses.
type tpmInfo struct {
	Specification *specification `json:"TPMSpecification,omitempty"`
	Attributes    *attributes    `json:"TPMAttributes,omitempty"`
}

type specification struct {
	Family   string `json:"family"`
	Level    uint32 `json:"level"`
	Revision uint32 `json:"revision"`
}

type attributes struct {
	Manufacturer string `json:"manufacturer"`
	Version      string `json:"version"`
	Model        string `json:"model"`
}

// Properties of a TPM, TCG Part 2, section 6.13 (TPM_PT), as offsets from the
// first one that is asked for, TPM_PT_FAMILY_INDICATOR.
const (
	propFamily       = 0x0
	propLevel        = 0x1
	propRevision     = 0x2
	propManufacturer = 0x5
	propVendor       = 0x6 // and the three behind it
	propFirmware     = 0xb
	propCount        = 0xc
)

// getProperties is TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES,
// TPM_PT_FAMILY_INDICATOR, propCount).
var getProperties = []byte{0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0, propCount}

// getInfo is GET_INFO. Only the TPM knows the answer, so it is there once the
// guest has started its TPM, and from then on.
//
// Preconditions: admit found nothing wrong.
func (s *session) getInfo(body []byte) error {
	flags, offset := order.Uint64(body), order.Uint32(body[8:])
	var info tpmInfo
	if flags&(infoSpecification|infoAttributes) != 0 {
		properties, ok := s.askProperties()
		if !ok {
			return s.reply(resFail)
		}
		info = describe(properties, flags)
	}
	text, err := json.Marshal(info)
	if err != nil {
		return s.reply(resSize)
	}
	if int64(offset) >= int64(len(text)) {
		return s.reply(resBadParameter)
	}
	text = append(text, 0)
	rest := text[offset:]
	s.out = putResult(s.out, resOK)
	s.out = order.AppendUint32(s.out, uint32(len(text)))
	s.out = order.AppendUint32(s.out, uint32(len(rest)))
	return s.control.answer(append(s.out, rest...))
}

// askProperties asks the TPM, once.
func (s *session) askProperties() ([]uint32, bool) {
	if s.properties != nil {
		return s.properties, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running.Load() {
		return nil, false
	}
	n := s.executeLocked(coproc.Command{Bytes: getProperties, Timeout: ownTimeout}, s.scratch)
	s.properties = parseProperties(s.scratch[:n])
	return s.properties, s.properties != nil
}

// parseProperties reads a response to getProperties; nil: it is none.
//
//	 0        10     11           15       19
//	+--------+------+------------+--------+----------------------------
//	| header | more | capability | count  | count * (property, value)
//	+--------+------+------------+--------+----------------------------
func parseProperties(resp []byte) []uint32 {
	const list = 19
	if len(resp) != list+8*propCount || codeOf(resp) != 0 || order.Uint32(resp[list-4:]) != propCount {
		return nil
	}
	values := make([]uint32, propCount)
	for i := range values {
		values[i] = order.Uint32(resp[list+8*i+4:])
	}
	return values
}

func describe(p []uint32, flags uint64) (info tpmInfo) {
	if flags&infoSpecification != 0 {
		info.Specification = &specification{Family: letters(p[propFamily]), Level: p[propLevel], Revision: p[propRevision]}
	}
	if flags&infoAttributes != 0 {
		var model strings.Builder
		for _, part := range p[propVendor : propVendor+4] {
			model.WriteString(letters(part))
		}
		info.Attributes = &attributes{
			Manufacturer: fmt.Sprintf("id:%08x", p[propManufacturer]),
			Version:      fmt.Sprintf("id:%08x", p[propFirmware]),
			Model:        strings.TrimSpace(model.String()),
		}
	}
	return info
}

// letters reads a property of four characters.
func letters(v uint32) string {
	b := order.AppendUint32(nil, v)
	return strings.TrimRight(string(b), "\x00")
}
