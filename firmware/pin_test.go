// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/coproctest/tpmtest"
)

// pinIndex defines an index whose password is "pin" and is counted, with a
// limit of 9.
func pinIndex(t *testing.T, tpm *tpmtest.TPM, kind tpm2.TPMNT, orderly bool) tpm2.NamedHandle {
	t.Helper()
	ix := tpm2.TPMHandle(tpmtest.NVBase)
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.TPMRHOwner,
		Auth:       tpm2.TPM2BAuth{Buffer: []byte("pin")},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex:    ix,
			NameAlg:    tpm2.TPMAlgSHA256,
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true, NT: kind, Orderly: orderly},
			DataSize:   8,
		}),
	}.Execute(tpm)
	if err != nil {
		t.Fatalf("NV_DefineSpace: %v", err)
	}
	tpm.WriteNV(tpmtest.NVBase, []byte{0, 0, 0, 0, 0, 0, 0, 9})
	pub, err := tpm2.NVReadPublic{NVIndex: ix}.Execute(tpm)
	if err != nil {
		t.Fatalf("NV_ReadPublic: %v", err)
	}
	return tpm2.NamedHandle{Handle: ix, Name: pub.NVName}
}

// TestPINCountsOutliveWorker: whoever can kill the worker must not get more
// tries at a PIN than its index allows.
func TestPINCountsOutliveWorker(t *testing.T) {
	for kind, try := range map[tpm2.TPMNT]string{tpm2.TPMNTPinPass: "pin", tpm2.TPMNTPinFail: "bad"} {
		for _, orderly := range []bool{false, true} {
			t.Run(fmt.Sprintf("kind %d orderly %t", kind, orderly), func(t *testing.T) {
				r := newRig(t)
				r.powerOn(r.run)
				r.tpm.Startup()
				ix := pinIndex(t, r.tpm, kind, orderly)
				for range 3 {
					_, err := tpm2.NVRead{
						AuthHandle: tpm2.AuthHandle{Handle: ix.Handle, Name: ix.Name, Auth: tpm2.PasswordAuth([]byte(try))},
						NVIndex:    ix, Size: 8,
					}.Execute(r.tpm)
					if (err == nil) != (try == "pin") {
						t.Fatalf("NV_Read with password %q: %v", try, err)
					}
				}
				r.shut()
				r.open()
				r.powerOn(r.run)
				if n := binary.BigEndian.Uint32(r.tpm.ReadNV(tpmtest.NVBase, 8)); n != 3 {
					t.Errorf("PIN count after a kill = %d, want 3", n)
				}
			})
		}
	}
}
