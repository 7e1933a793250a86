// SPDX-License-Identifier: Apache-2.0

package pcrmap

import (
	"bytes"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/engine"
)

// One engine per process: the tests share it and are not parallel.
var shared = sync.OnceValues(engine.New)

// rig is a TPM that was started, and a guest's view of it.
type rig struct {
	*tpmtest.TPM
	t    testing.TB
	eng  *engine.Engine
	perm []byte
}

func newRig(t testing.TB) *rig {
	t.Helper()
	eng, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Stop)
	if err := eng.Manufacture(); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, eng: eng, perm: eng.Stored(nil)}
	r.TPM = tpmtest.New(t, r.send)
	return r
}

func started(t testing.TB) *rig {
	t.Helper()
	r := newRig(t)
	r.Startup()
	return r
}

func (r *rig) send(cmd []byte) ([]byte, error) {
	resp := make([]byte, engine.MaxResponse)
	n, _, err := r.eng.Process(0, bytes.Clone(cmd), resp)
	if p := r.eng.Stored(nil); len(p) > 0 {
		r.perm = p
	}
	return resp[:n], err
}

func (r *rig) volatile() []byte {
	r.t.Helper()
	b := make([]byte, maxState)
	n, err := r.eng.Volatile(b)
	if err != nil {
		r.t.Fatal(err)
	}
	return b[:n]
}

// apply maps, and drops what the engine stored over it.
func (r *rig) apply(m *abi.PCRMap) {
	r.t.Helper()
	if err := Apply(r.eng, r.perm, m); err != nil {
		r.t.Fatalf("Apply: %v", err)
	}
	r.eng.Stored(nil)
}

func (r *rig) reading() *reading {
	r.t.Helper()
	got, err := read(r.eng, make([]byte, maxResponse))
	if err != nil {
		r.t.Fatalf("read: %v", err)
	}
	return got
}

func mapped(t testing.TB) *abi.PCRMap {
	t.Helper()
	m, err := testMap()
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

var selectPCR07 = tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
	{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 7)},
}}

// pcrSession opens a policy session that wants PCR 0 and 7 as they are.
func (r *rig) pcrSession() (tpm2.Session, []byte) {
	r.t.Helper()
	s, _, err := tpm2.PolicySession(r, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := (tpm2.PolicyPCR{PolicySession: s.Handle(), Pcrs: selectPCR07}).Execute(r); err != nil {
		r.t.Fatal(err)
	}
	d, err := tpm2.PolicyGetDigest{PolicySession: s.Handle()}.Execute(r)
	if err != nil {
		r.t.Fatal(err)
	}
	return s, d.PolicyDigest.Buffer
}

// seal makes an object that a policy with this digest unseals.
func (r *rig) seal(parent tpmtest.Object, policy []byte) tpm2.NamedHandle {
	r.t.Helper()
	auth := tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)}
	c, err := tpm2.Create{
		ParentHandle: auth,
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: []byte("secret")}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true},
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
		}),
	}.Execute(r)
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := tpm2.Load{ParentHandle: auth, InPrivate: c.OutPrivate, InPublic: c.OutPublic}.Execute(r)
	if err != nil {
		r.t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: l.ObjectHandle, Name: l.Name}
}

func (r *rig) unseal(o tpm2.NamedHandle, s tpm2.Session) error {
	_, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: o.Handle, Name: o.Name, Auth: s}}.Execute(r)
	return err
}

// defineOrderly makes an index of NV memory that is in the volatile state.
func (r *rig) defineOrderly(index uint32, data []byte) {
	r.t.Helper()
	if _, err := (tpm2.NVDefineSpace{
		AuthHandle: tpm2.TPMRHOwner,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, AuthWrite: true, NoDA: true, Orderly: true},
		}),
	}).Execute(r); err != nil {
		r.t.Fatal(err)
	}
	r.WriteNV(tpmtest.Index(index), data)
}
