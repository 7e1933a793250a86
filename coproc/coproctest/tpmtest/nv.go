// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Index is an NV index that tests may define, from the owner's range.
type Index uint32

// NVBase is the first index for tests.
const NVBase Index = 0x01800000

// DefineNV defines an ordinary index without a password.
func (p *TPM) DefineNV(ix Index, size int) {
	p.t.Helper()
	p.define(ix, size, tpm2.TPMNTOrdinary, false)
}

// DefineCounter defines a counter; an orderly one lives in RAM.
func (p *TPM) DefineCounter(ix Index, orderly bool) {
	p.t.Helper()
	p.define(ix, 8, tpm2.TPMNTCounter, orderly)
}

func (p *TPM) define(ix Index, size int, kind tpm2.TPMNT, orderly bool) {
	p.t.Helper()
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.TPMRHOwner,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(ix),
			NameAlg: tpm2.TPMAlgSHA256,
			Attributes: tpm2.TPMANV{
				OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true,
				NoDA: true, NT: kind, Orderly: orderly,
			},
			DataSize: uint16(size),
		}),
	}.Execute(p)
	p.ok("NV_DefineSpace", err)
}

// nv gives the handle with its name, as go-tpm wants it.
func (p *TPM) nv(ix Index) tpm2.NamedHandle {
	p.t.Helper()
	r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(ix)}.Execute(p)
	p.ok("NV_ReadPublic", err)
	return tpm2.NamedHandle{Handle: tpm2.TPMHandle(ix), Name: r.NVName}
}

// WriteNV writes data to the start of an index.
func (p *TPM) WriteNV(ix Index, data []byte) {
	p.t.Helper()
	_, err := tpm2.NVWrite{
		AuthHandle: tpm2.TPMRHOwner,
		NVIndex:    p.nv(ix),
		Data:       tpm2.TPM2BMaxNVBuffer{Buffer: data},
	}.Execute(p)
	p.ok("NV_Write", err)
}

// ReadNV reads n bytes from the start of an index.
func (p *TPM) ReadNV(ix Index, n int) []byte {
	p.t.Helper()
	r, err := tpm2.NVRead{AuthHandle: tpm2.TPMRHOwner, NVIndex: p.nv(ix), Size: uint16(n)}.Execute(p)
	p.ok("NV_Read", err)
	return r.Data.Buffer
}

// Increment increments a counter.
func (p *TPM) Increment(ix Index) {
	p.t.Helper()
	_, err := tpm2.NVIncrement{AuthHandle: tpm2.TPMRHOwner, NVIndex: p.nv(ix)}.Execute(p)
	p.ok("NV_Increment", err)
}

// ReadIndex reads all of an index as the owner, in the pieces that a TPM gives.
// Without such an index there is nothing, and no error.
func ReadIndex(t transport.TPM, index uint32) ([]byte, error) {
	r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	public, err := r.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	const piece = 1024 // TPM_PT_NV_BUFFER_MAX
	all := []byte{}
	for len(all) < int(public.DataSize) {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: r.NVName},
			Size: uint16(min(int(public.DataSize)-len(all), piece)), Offset: uint16(len(all)),
		}.Execute(t)
		if err != nil {
			return nil, err
		}
		all = append(all, part.Data.Buffer...)
	}
	return all, nil
}
