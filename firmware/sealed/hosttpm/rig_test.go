// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"hwvtpm/coproc/coproctest/swtpmtest"
	"hwvtpm/firmware/engine"
)

// bus is a transport that somebody listens to, and that can break.
type bus struct {
	send  func(cmd []byte) ([]byte, error)
	heard []byte
	sent  int
	fail  int // the command of this number is not sent; flushes are
}

var errBus = errors.New("bus broke")

func (b *bus) Send(cmd []byte) ([]byte, error) {
	if tpm2.TPMCC(cmd[8])<<8|tpm2.TPMCC(cmd[9]) != tpm2.TPMCCFlushContext {
		if b.sent++; b.sent == b.fail {
			return nil, errBus
		}
	}
	b.heard = append(b.heard, cmd...)
	rsp, err := b.send(cmd)
	b.heard = append(b.heard, rsp...)
	return rsp, err
}

// One engine per process: the tests share it and are not parallel.
var shared = sync.OnceValues(engine.New)

// newTPM is a host TPM of libtpms in this process.
func newTPM(t testing.TB) (TPM, *bus) {
	t.Helper()
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	e.Stop()
	if err := e.Manufacture(); err != nil {
		t.Fatal(err)
	}
	b := &bus{send: func(cmd []byte) ([]byte, error) {
		rsp := make([]byte, engine.MaxResponse)
		n, _, err := e.Process(0, bytes.Clone(cmd), rsp)
		return rsp[:n], err
	}}
	startup(t, b)
	return TPM{Transport: b}, b
}

func startup(t testing.TB, b *bus) {
	t.Helper()
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(b); err != nil {
		t.Fatal(err)
	}
}

// newSwtpm is a host TPM of another make, in another process.
func newSwtpm(t testing.TB) (TPM, *bus) {
	t.Helper()
	swtpmtest.Need(t)
	tpm, err := linuxudstpm.Open(swtpmtest.Start(t, swtpmtest.Dir(t)))
	if err != nil {
		t.Fatal(err)
	}
	b := &bus{send: tpm.Send}
	return TPM{Transport: b}, b
}

// onBoth runs a test on both makes.
func onBoth(t *testing.T, test func(t *testing.T, tpm TPM, b *bus)) {
	t.Helper()
	for name, open := range map[string]func(testing.TB) (TPM, *bus){"libtpms": newTPM, "swtpm": newSwtpm} {
		t.Run(name, func(t *testing.T) {
			tpm, b := open(t)
			test(t, tpm, b)
			if left := loaded(t, b); left != 0 {
				t.Errorf("%d objects and sessions are left in the TPM", left)
			}
		})
	}
}

// loaded counts objects and sessions in the TPM.
func loaded(t testing.TB, b *bus) int {
	t.Helper()
	n := 0
	for _, first := range []tpm2.TPMHandle{0x80000000, 0x02000000, 0x03000000} {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(first), PropertyCount: 64}.Execute(b)
		if err != nil {
			t.Fatal(err)
		}
		handles, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range handles.Handle {
			if h>>24 == first>>24 {
				n++
			}
		}
	}
	return n
}

func extend(t *testing.T, b *bus, pcr tpm2.TPMHandle) {
	t.Helper()
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: pcr, Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{
			{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)},
		}},
	}.Execute(b)
	if err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
