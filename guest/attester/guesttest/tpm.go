// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
)

// Write writes an NV index as a card's firmware does.
func (r *Rig) Write(index tpm2.TPMHandle, data []byte) {
	r.t.Helper()
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true}}),
	}.Execute(r.TPM)
	r.fatal(err)
	name, err := tpm2.NVReadPublic{NVIndex: index}.Execute(r.TPM)
	r.fatal(err)
	for at := 0; at < len(data); at += 512 {
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: name.NVName}, Offset: uint16(at),
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+512, len(data))]},
		}.Execute(r.TPM)
		r.fatal(err)
	}
}

// Extend extends a PCR, past the bus.
func (r *Rig) Extend(pcr tpm2.TPMHandle) {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: pcr, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(r.TPM)
	if err != nil {
		r.t.Errorf("PCR_Extend: %v", err)
	}
}

// Loaded counts objects and sessions in the TPM.
func (r *Rig) Loaded() int {
	r.t.Helper()
	n := 0
	for _, first := range []uint32{0x02000000, 0x03000000, 0x80000000} {
		c, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(r.TPM)
		r.fatal(err)
		list, err := c.CapabilityData.Data.Handles()
		r.fatal(err)
		n += len(list.Handle)
	}
	return n
}

// Listen has the TPM take commands from a UNIX socket, of one client at a time, and
// gives its path.
func (r *Rig) Listen() string {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "guest") // short, for the socket's name
	r.fatal(err)
	r.t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "tpm"))
	r.fatal(err)
	r.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.talk(c)
		}
	}()
	return l.Addr().String()
}

func (r *Rig) talk(c net.Conn) {
	defer c.Close()
	for head := make([]byte, 10); ; {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		cmd := append([]byte(nil), head...)
		cmd = append(cmd, make([]byte, binary.BigEndian.Uint32(head[2:])-10)...)
		if _, err := io.ReadFull(c, cmd[10:]); err != nil {
			return
		}
		rsp, err := r.Bus.Send(cmd)
		if err != nil {
			return
		}
		if _, err := c.Write(rsp); err != nil {
			return
		}
	}
}
