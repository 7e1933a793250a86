// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"

	"hwvtpm/coproc/abi"
)

// namespace is that of our element in a domain's metadata.
const namespace = "urn:hwvtpm:libvirt:1"

// maxDomain is more than the XML of any domain has, in bytes.
const maxDomain = 4 << 20

// domain is what concerns us of a domain's XML (libvirt, "Domain XML format").
type domain struct {
	XMLName  xml.Name `xml:"domain"`
	UUID     string   `xml:"uuid"`
	Metadata struct {
		VTPMs []vtpmElement `xml:"urn:hwvtpm:libvirt:1 vtpm"`
	} `xml:"metadata"`
}

// vtpmElement asks for a vTPM:
//
//	<hwvtpm:vtpm xmlns:hwvtpm='urn:hwvtpm:libvirt:1' slot='vm1' face='virtio'/>
type vtpmElement struct {
	Slot   string     `xml:"slot,attr"`
	Face   string     `xml:"face,attr"`
	Others []xml.Attr `xml:",any,attr"`
}

// request is a vTPM that a domain asks for.
type request struct {
	uuid string // of the domain
	slot string
	face string
}

// readRequest finds what the domain asks for, or nil. XML that can't be read is an
// error only if our namespace is in it: libvirt has its own word to say on others.
func readRequest(r io.Reader) (*request, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxDomain+1))
	if err != nil {
		return nil, fmt.Errorf("reading the domain's XML: %w", err)
	}
	if !bytes.Contains(text, []byte(namespace)) {
		return nil, nil
	}
	if len(text) > maxDomain {
		return nil, fmt.Errorf("the domain's XML has more than %d bytes", maxDomain)
	}
	var d domain
	if err := xml.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("the domain's XML: %w", err)
	}
	switch found := d.Metadata.VTPMs; len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0].request(d.UUID)
	default:
		return nil, errors.New("the domain's metadata has several vtpm elements: a machine has one TPM")
	}
}

func (e vtpmElement) request(uuid string) (*request, error) {
	for _, a := range e.Others {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			return nil, fmt.Errorf("the vtpm element of the domain's metadata has the attribute %q, which means nothing", a.Name.Local)
		}
	}
	req := &request{uuid: uuid, slot: e.Slot, face: cmp.Or(e.Face, faceVirtio)}
	switch {
	case uuid == "":
		return nil, errors.New("the domain's XML has no uuid")
	case !abi.ValidName(req.slot):
		return nil, fmt.Errorf("the vtpm element of the domain's metadata names the slot %q, which can't be one", req.slot)
	case req.face != faceVirtio && req.face != faceEmulator:
		return nil, fmt.Errorf("the vtpm element of the domain's metadata has the face %q, which is not virtio or emulator", req.face)
	}
	return req, nil
}
