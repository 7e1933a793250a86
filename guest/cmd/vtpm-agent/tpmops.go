// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/guest/agent"
)

func tpmRaw(_ context.Context, a agent.RawArgs) (r agent.Data, err error) {
	err = withTPM(a.TPMArgs, func(d *tpmDevice) error {
		resp, err := d.Send(a.Command)
		r.Data = slices.Clone(resp)
		return err
	})
	return r, err
}

func tpmRandom(_ context.Context, a agent.RandomArgs) (r agent.Data, err error) {
	err = withTPM(a.TPMArgs, func(d *tpmDevice) error {
		rsp, err := tpm2.GetRandom{BytesRequested: a.Bytes}.Execute(d)
		if err != nil {
			return err
		}
		r.Data = rsp.RandomBytes.Buffer
		return nil
	})
	return r, err
}

func tpmInfo(_ context.Context, a agent.TPMArgs) (info agent.TPMInfo, err error) {
	err = withTPM(a, func(d *tpmDevice) error {
		rsp, err := tpm2.GetCapability{
			Capability:    tpm2.TPMCapTPMProperties,
			Property:      uint32(tpm2.TPMPTFamilyIndicator),
			PropertyCount: 64,
		}.Execute(d)
		if err != nil {
			return err
		}
		props, err := rsp.CapabilityData.Data.TPMProperties()
		if err != nil {
			return err
		}
		value := make(map[tpm2.TPMPT]uint32)
		for _, p := range props.TPMProperty {
			value[p.Property] = p.Value
		}
		info = infoFrom(value)
		return nil
	})
	return info, err
}

func infoFrom(value map[tpm2.TPMPT]uint32) agent.TPMInfo {
	text := func(props ...tpm2.TPMPT) string {
		var b []byte
		for _, p := range props {
			b = binary.BigEndian.AppendUint32(b, value[p])
		}
		return string(bytes.Trim(b, "\x00 "))
	}
	return agent.TPMInfo{
		Manufacturer: text(tpm2.TPMPTManufacturer),
		Vendor: text(tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2,
			tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4),
		Family:      text(tpm2.TPMPTFamilyIndicator),
		Revision:    value[tpm2.TPMPTRevision],
		Firmware:    uint64(value[tpm2.TPMPTFirmwareVersion1])<<32 | uint64(value[tpm2.TPMPTFirmwareVersion2]),
		MaxCommand:  value[tpm2.TPMPTMaxCommandSize],
		MaxResponse: value[tpm2.TPMPTMaxResponseSize],
	}
}

func bankAlg(name string) (tpm2.TPMAlgID, error) {
	switch name {
	case "", "sha256":
		return tpm2.TPMAlgSHA256, nil
	case "sha1":
		return tpm2.TPMAlgSHA1, nil
	case "sha384":
		return tpm2.TPMAlgSHA384, nil
	case "sha512":
		return tpm2.TPMAlgSHA512, nil
	}
	return 0, fmt.Errorf("unknown PCR bank %q", name)
}

func pcrHandle(pcr int) (tpm2.TPMHandle, error) {
	if pcr < 0 || pcr > 23 {
		return 0, fmt.Errorf("no PCR %d", pcr)
	}
	return tpm2.TPMHandle(pcr), nil
}

func pcrRead(_ context.Context, a agent.PCRReadArgs) (agent.PCRs, error) {
	alg, err := bankAlg(a.Bank)
	if err != nil {
		return nil, err
	}
	pcrs := make(agent.PCRs, len(a.PCRs))
	err = withTPM(a.TPMArgs, func(d *tpmDevice) error {
		// One at a time: a TPM may answer a longer list only in part.
		for _, pcr := range a.PCRs {
			if pcrs[pcr], err = readPCR(d, alg, pcr); err != nil {
				return err
			}
		}
		return nil
	})
	return pcrs, err
}

func pcrSelection(alg tpm2.TPMAlgID, pcrs ...uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: alg, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...),
	}}}
}

func readPCR(d *tpmDevice, alg tpm2.TPMAlgID, pcr int) ([]byte, error) {
	if _, err := pcrHandle(pcr); err != nil {
		return nil, err
	}
	rsp, err := tpm2.PCRRead{PCRSelectionIn: pcrSelection(alg, uint(pcr))}.Execute(d)
	if err != nil {
		return nil, err
	}
	if len(rsp.PCRValues.Digests) != 1 {
		return nil, fmt.Errorf("PCR %d: the bank is not there", pcr)
	}
	return rsp.PCRValues.Digests[0].Buffer, nil
}

func extendCommand(alg tpm2.TPMAlgID, pcr tpm2.TPMHandle, digest []byte) tpm2.PCRExtend {
	return tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: pcr, Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{
			{HashAlg: alg, Digest: digest},
		}},
	}
}

func pcrExtend(_ context.Context, a agent.PCRExtendArgs) (none, error) {
	alg, err := bankAlg(a.Bank)
	if err != nil {
		return none{}, err
	}
	pcr, err := pcrHandle(a.PCR)
	if err != nil {
		return none{}, err
	}
	return none{}, withTPM(a.TPMArgs, func(d *tpmDevice) error {
		_, err := extendCommand(alg, pcr, a.Digest).Execute(d)
		return err
	})
}
