// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/guest/agent"
)

// nvHandles reads the index's name and returns it as the object and, with an
// empty password, as its own authorisation.
func nvHandles(d *tpmDevice, index uint32) (tpm2.NamedHandle, tpm2.AuthHandle, error) {
	h := tpm2.TPMHandle(index)
	pub, err := tpm2.NVReadPublic{NVIndex: h}.Execute(d)
	if err != nil {
		return tpm2.NamedHandle{}, tpm2.AuthHandle{}, err
	}
	return tpm2.NamedHandle{Handle: h, Name: pub.NVName},
		tpm2.AuthHandle{Handle: h, Name: pub.NVName, Auth: tpm2.PasswordAuth(nil)}, nil
}

func nvDefine(_ context.Context, a agent.NVArgs) (none, error) {
	return none{}, withTPM(a.TPMArgs, func(d *tpmDevice) error {
		_, err := tpm2.NVDefineSpace{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
				NVIndex: tpm2.TPMHandle(a.Index),
				NameAlg: tpm2.TPMAlgSHA256,
				Attributes: tpm2.TPMANV{
					AuthWrite: true, AuthRead: true, OwnerWrite: true, OwnerRead: true,
					NT: tpm2.TPMNTOrdinary, NoDA: true,
				},
				DataSize: a.Size,
			}),
		}.Execute(d)
		return err
	})
}

func nvUndefine(_ context.Context, a agent.NVArgs) (none, error) {
	return none{}, withTPM(a.TPMArgs, func(d *tpmDevice) error {
		index, _, err := nvHandles(d, a.Index)
		if err != nil {
			return err
		}
		_, err = tpm2.NVUndefineSpace{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    index,
		}.Execute(d)
		return err
	})
}

func nvWriteCommand(index tpm2.NamedHandle, auth tpm2.AuthHandle, offset uint16, data []byte) tpm2.NVWrite {
	return tpm2.NVWrite{
		AuthHandle: auth, NVIndex: index, Offset: offset,
		Data: tpm2.TPM2BMaxNVBuffer{Buffer: data},
	}
}

func nvWrite(_ context.Context, a agent.NVArgs) (none, error) {
	return none{}, withTPM(a.TPMArgs, func(d *tpmDevice) error {
		index, auth, err := nvHandles(d, a.Index)
		if err != nil {
			return err
		}
		_, err = nvWriteCommand(index, auth, a.Offset, a.Data).Execute(d)
		return err
	})
}

func nvRead(_ context.Context, a agent.NVArgs) (r agent.Data, err error) {
	err = withTPM(a.TPMArgs, func(d *tpmDevice) error {
		index, auth, err := nvHandles(d, a.Index)
		if err != nil {
			return err
		}
		rsp, err := tpm2.NVRead{AuthHandle: auth, NVIndex: index, Offset: a.Offset, Size: a.Size}.Execute(d)
		if err != nil {
			return err
		}
		r.Data = rsp.Data.Buffer
		return nil
	})
	return r, err
}
