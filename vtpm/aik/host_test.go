// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/enrol"
	"hwvtpm/vtpm/hostpcr"
)

// TestOpen: the key is made once, is one that an authority certifies, and leaves
// nothing in the TPM and only its file in the folder.
func TestOpen(t *testing.T) {
	for name, alg := range bothTypes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			first := r.open(Options{Key: alg})
			r.empty("after Open")
			ak, err := enrol.ParseAK(first.AKPublic())
			if err != nil {
				t.Fatal(err)
			}
			if !ak.Key.(interface{ Equal(crypto.PublicKey) bool }).Equal(first.Public()) {
				t.Error("Public and AKPublic are of two keys")
			}
			files := must(os.ReadDir(r.dir))(t)
			if len(files) != 1 || files[0].Name() != keyFile {
				t.Errorf("files %v, want %s alone", files, keyFile)
			}
			if mode := must(os.Stat(keyPath(r.dir)))(t).Mode(); mode != 0o600 {
				t.Errorf("%s has mode %v", keyFile, mode)
			}
			if mode := must(os.Stat(r.dir))(t).Mode(); mode != fs.ModeDir|0o700 {
				t.Errorf("the folder has mode %v", mode)
			}
			again := r.open(Options{}) // its type is that of the file
			if !bytes.Equal(again.AKPublic(), first.AKPublic()) {
				t.Error("opened again, it is another key")
			}
			for _, h := range []*Host{first, again} {
				if _, err := h.Quote(t.Context(), nil, tpm2.TPMLPCRSelection{}); err != nil {
					t.Error(err)
				}
			}
			r.empty("after quotes")
		})
	}
	if _, err := Open(&bus{}, t.TempDir(), Options{Key: 7}); err == nil {
		t.Error("made a key of type 7")
	}
}

// TestClearedTPM: a TPM that was cleared is another one, and says so.
func TestClearedTPM(t *testing.T) {
	r := newRig(t)
	h := r.open(Options{})
	_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(r.tpm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.bus, r.dir, Options{}); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("Open: %v, want %v", err, ErrOtherTPM)
	}
	if _, err := h.Quote(t.Context(), nil, tpm2.TPMLPCRSelection{}); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("Quote: %v, want %v", err, ErrOtherTPM)
	}
	r.empty("after Clear")
	if err := os.Remove(keyPath(r.dir)); err != nil {
		t.Fatal(err)
	}
	r.open(Options{})
}

// TestReset: contexts end when the TPM is reset; the key does not.
func TestReset(t *testing.T) {
	r := newRig(t)
	h := r.open(Options{})
	r.bus.twist = func(cmd, rsp []byte) []byte {
		if code(cmd) == tpm2.TPMCCContextLoad {
			r.bus.twist = nil
			r.tpm.Send(append([]byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65}, rsp[10:14]...)) // FlushContext
			return failure(tpm2.TPMRCHandle)
		}
		return rsp
	}
	for range 2 {
		if _, err := h.Quote(t.Context(), nil, tpm2.TPMLPCRSelection{}); err != nil {
			t.Error(err)
		}
	}
	r.empty("after a reset")
}

// works are all that a Host does with a TPM, each once.
func (r *rig) works(h *Host) map[string]func() error {
	r.t.Helper()
	blob, seed := credential(r.t, r, profiles[0].public, h.key.name.Buffer, []byte("secret"))
	pcrs := must(h.HostPCRs(hostpcr.Config{}))(r.t)
	r.t.Cleanup(func() { pcrs.Close() })
	sign := func(n int) func() error {
		return func() error {
			_, err := h.Signer().(crypto.MessageSigner).SignMessage(nil, make([]byte, n), crypto.SHA256)
			return err
		}
	}
	return map[string]func() error{
		"sign": sign(300), "sign much": sign(3000),
		"quote": func() error {
			_, err := h.Quote(context.Background(), bytes.Repeat([]byte{1}, 32), Selection([]uint{0, 7, 23}, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA1))
			return err
		},
		"read PCRs": func() error {
			_, err := pcrs.Read(context.Background(), bytes.Repeat([]byte{1}, 32))
			return err
		},
		"activate": func() error {
			_, err := h.Activate(blob, seed)
			return err
		},
		"certificate": func() error {
			_, _, err := h.EKCertificate()
			return err
		},
	}
}

// TestNothingStays: after many operations, and after any command of any of them
// failed, nothing is left in the TPM, and the next operation does what it should.
func TestNothingStays(t *testing.T) {
	r := newRig(t)
	r.define(profiles[0].index, r.ekCert(profiles[0].public), true, nil)
	h := r.open(Options{})
	works := r.works(h)
	for n := range 40 {
		for name, work := range works {
			if err := work(); err != nil {
				t.Fatalf("%s, time %d: %v", name, n, err)
			}
		}
	}
	r.empty("after 240 operations")
	for name, work := range works {
		for fails := 1; ; fails++ {
			h.ready = nil // so that loading from blobs is part of it
			r.bus.sent, r.bus.fail = 0, fails
			err := work()
			over := r.bus.sent < fails
			r.bus.fail = 0
			if over {
				break
			}
			flushed := err == nil // it was but a flush that failed
			if !flushed && (!errors.Is(err, errBus) || !errors.Is(err, ErrTPM) && !errors.Is(err, hostpcr.ErrTPM)) {
				t.Errorf("%s without command %d: %v", name, fails, err)
			}
			if err := work(); err != nil {
				t.Fatalf("%s after one without command %d: %v", name, fails, err)
			}
			r.empty(fmt.Sprintf("%s without command %d", name, fails))
		}
	}
}

// TestLostAnswers: of what the TPM did and could not say, one object can stay, which
// is not ours to find. Operations go on.
func TestLostAnswers(t *testing.T) {
	r := newRig(t)
	r.define(profiles[0].index, r.ekCert(profiles[0].public), true, nil)
	h := r.open(Options{})
	for name, work := range r.works(h) {
		for fails := 1; ; fails++ {
			h.ready = nil
			r.bus.sent, r.bus.fail, r.bus.lost = 0, fails, true
			work()
			over := r.bus.sent < fails
			r.bus.fail = 0
			if over {
				break
			}
			if err := work(); err != nil {
				t.Fatalf("%s after one without answer %d: %v", name, fails, err)
			}
			if n := loaded(t, r.tpm); n > 1 {
				t.Errorf("%s without answer %d: %d objects and sessions are left", name, fails, n)
			}
			r.flushAll()
		}
	}
}

// flushAll is what a resource manager does when a connection ends.
func (r *rig) flushAll() {
	r.t.Helper()
	t := &lane{tpm: r.tpm}
	for _, first := range []tpm2.TPMHandle{0x02000000, 0x03000000, 0x80000000} {
		t.loaded = append(t.loaded, must(handles(t, first, first|0xffffff))(r.t)...)
	}
	t.flush()
}

// TestTurns: whoever asks at once gets what it asked for.
func TestTurns(t *testing.T) {
	r := newRig(t)
	r.define(profiles[0].index, r.ekCert(profiles[0].public), true, nil)
	h := r.open(Options{})
	var wg sync.WaitGroup
	for name, work := range r.works(h) {
		wg.Go(func() {
			for range 10 {
				if err := work(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	r.empty("after all")
}

// TestLockout: somebody else's wrong passwords do not stop the host.
func TestLockout(t *testing.T) {
	r := newRig(t)
	r.define(profiles[0].index, r.ekCert(profiles[0].public), true, nil)
	h := r.open(Options{})
	victim := r.tpm.AK(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.NoDA = false })
	err := error(nil)
	for tries := 0; !errors.Is(err, tpm2.TPMRCLockout); tries++ {
		if tries == 100 {
			t.Fatalf("no lockout after %d wrong passwords: %v", tries, err)
		}
		_, err = tpm2.Quote{
			SignHandle: tpm2.AuthHandle{Handle: victim.Handle, Name: victim.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(r.tpm)
	}
	if err := tpmError("quote", err); !errors.Is(err, ErrLockout) {
		t.Errorf("%v is not %v", err, ErrLockout)
	}
	r.tpm.Flush(victim)
	h.ready = nil
	for name, work := range r.works(h) {
		if err := work(); err != nil {
			t.Errorf("%s in lockout: %v", name, err)
		}
	}
	r.empty("in lockout")
}

// TestClose: nothing begins after it, and it can be called again.
func TestClose(t *testing.T) {
	r := newRig(t)
	r.define(profiles[0].index, r.ekCert(profiles[0].public), true, nil)
	h := r.open(Options{})
	works := r.works(h)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { h.Close() })
	}
	wg.Wait()
	sent := r.bus.sent
	for name, work := range works {
		if err := work(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if r.bus.sent != sent {
		t.Error("the TPM was asked after Close")
	}
}

// TestWaitEnds: who no longer wants to wait for its turn need not.
func TestWaitEnds(t *testing.T) {
	r := newRig(t)
	h := r.open(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	<-h.turn
	failed := make(chan error)
	go func() {
		_, err := h.Quote(ctx, nil, tpm2.TPMLPCRSelection{})
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Quote: %v, want %v", err, context.Canceled)
	}
	h.turn <- struct{}{}
	if _, err := h.Quote(t.Context(), make([]byte, MaxQualifying+1), tpm2.TPMLPCRSelection{}); err == nil {
		t.Error("too much qualifying data was taken")
	}
}
