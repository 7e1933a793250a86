// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/firmware/sealed"
)

func testAuth() *sealed.Key {
	k, err := sealed.KeyFrom(bytes.Repeat([]byte{0xc7}, sealed.KeySize))
	if err != nil {
		panic(err)
	}
	return k
}

func undefine(t *testing.T, c *Counter) {
	t.Helper()
	_, err := tpm2.NVUndefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: c.index, Name: c.name},
	}.Execute(c.tpm.Transport)
	must(t, err)
}

func TestCounterOnlyGrows(t *testing.T) {
	onBoth(t, func(t *testing.T, tpm TPM, b *bus) {
		c, err := DefineCounter(tpm, DefaultIndex, testAuth())
		must(t, err)
		first, err := c.Read()
		must(t, err)
		for n := uint64(1); n < 20; n++ {
			must(t, c.Increment())
			if v, err := c.Read(); err != nil || v != first+n {
				t.Fatalf("%d, %v; want %d", v, err, first+n)
			}
		}
		if bytes.Contains(b.heard, testAuth().Bytes()) {
			t.Error("the counter's secret crossed the bus")
		}
		again, err := OpenCounter(tpm, DefaultIndex, testAuth())
		must(t, err)
		if v, err := again.Read(); err != nil || v != first+19 || again.id != c.id {
			t.Errorf("opened again: %d, %v", v, err)
		}
		if _, err := DefineCounter(tpm, DefaultIndex, testAuth()); !errors.Is(err, tpm2.TPMRCNVDefined) {
			t.Errorf("defined over a counter: %v", err)
		}
		stranger, err := OpenCounter(tpm, DefaultIndex, sealed.NewKey())
		must(t, err)
		if err := stranger.Increment(); err == nil {
			t.Error("incremented without the secret")
		}
		if _, err := stranger.Read(); err == nil {
			t.Error("an answer was taken that is not authentic")
		}
		// Removed by the owner and defined again, it goes on where it was.
		undefine(t, c)
		if _, err := OpenCounter(tpm, DefaultIndex, testAuth()); !errors.Is(err, sealed.ErrCounter) {
			t.Errorf("a counter that was removed: %v", err)
		}
		c, err = DefineCounter(tpm, DefaultIndex, testAuth())
		must(t, err)
		if v, err := c.Read(); err != nil || v <= first+19 {
			t.Errorf("defined again: %d, %v; want more than %d", v, err, first+19)
		}
	})
}

// A zero byte anywhere in the secret must not end in a counter that nobody can
// use: see authValue.
func TestCounterWithZerosInItsSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, tpm TPM, _ *bus) {
		for _, secret := range [][]byte{
			append(bytes.Repeat([]byte{7}, sealed.KeySize-2), 0, 0),
			append([]byte{7, 0}, bytes.Repeat([]byte{7}, sealed.KeySize-2)...),
			make([]byte, sealed.KeySize),
		} {
			auth, err := sealed.KeyFrom(secret)
			must(t, err)
			c, err := DefineCounter(tpm, DefaultIndex, auth)
			must(t, err)
			first, err := c.Read()
			must(t, err)
			must(t, c.Increment())
			if got, err := c.Read(); err != nil || got != first+1 {
				t.Errorf("Read after an increment = %d, %v, want %d", got, err, first+1)
			}
			undefine(t, c)
		}
	})
}

func TestOwnerAuthWithAZeroIsRefused(t *testing.T) {
	tpm, _ := newTPM(t)
	tpm.OwnerAuth = []byte{1, 0, 1}
	if _, err := DefineCounter(tpm, DefaultIndex, testAuth()); err == nil {
		t.Error("DefineCounter succeeded")
	}
}

func TestCounterOfOtherAttributesIsRefused(t *testing.T) {
	tpm, b := newTPM(t)
	bad := attributes
	bad.OwnerWrite = true
	auth := testAuth()
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		Auth:       tpm2.TPM2BAuth{Buffer: auth.Bytes()},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: DefaultIndex, NameAlg: tpm2.TPMAlgSHA256, Attributes: bad, DataSize: 8}),
	}.Execute(b)
	must(t, err)
	if _, err := OpenCounter(tpm, DefaultIndex, auth); !errors.Is(err, sealed.ErrCounter) {
		t.Errorf("%v", err)
	}
}

// All of it on one TPM: key and counter, and a store that was set back.
func TestStoreOnAHostTPM(t *testing.T) {
	onBoth(t, func(t *testing.T, tpm TPM, b *bus) {
		source, _ := sealNew(t, tpm, bootPCRs)
		store, err := sealed.OpenStore(source)
		must(t, err)
		auth, err := store.Secret("counter")
		must(t, err)
		counter, err := DefineCounter(tpm, DefaultIndex, auth)
		must(t, err)
		cfg := sealed.AnchorConfig{Store: store, Path: filepath.Join(t.TempDir(), "anchor"), Counter: counter}
		a, err := sealed.CreateAnchor(cfg)
		must(t, err)
		slot, err := store.Slot(sealed.SlotID{1})
		must(t, err)
		var blobs [][]byte
		var records [][]byte
		for g := uint64(1); g <= 3; g++ {
			blob, err := slot.Seal(nil, sealed.KindPermanent, g, a.Epoch(), []byte("state"))
			must(t, err)
			must(t, a.Note(sealed.Label{Slot: sealed.SlotID{1}, Kind: sealed.KindPermanent, Generation: g, Epoch: a.Epoch()}))
			must(t, a.Advance())
			record, err := os.ReadFile(cfg.Path)
			must(t, err)
			blobs, records = append(blobs, blob), append(records, record)
		}
		must(t, a.Close())

		must(t, os.WriteFile(cfg.Path, records[1], 0o600))
		if _, err := sealed.OpenAnchor(cfg); !errors.Is(err, sealed.ErrRollback) {
			t.Errorf("old record: %v", err)
		}
		must(t, os.WriteFile(cfg.Path, records[2], 0o600))
		a, err = sealed.OpenAnchor(cfg)
		must(t, err)
		for i, blob := range blobs {
			_, label, err := slot.Open(nil, sealed.KindPermanent, blob)
			must(t, err)
			if err := a.Check(label); errors.Is(err, sealed.ErrRollback) != (i < 2) {
				t.Errorf("state %d: %v", i, err)
			}
		}
		if bytes.Contains(b.heard, authValue(auth)) {
			t.Error("the counter's secret crossed the bus")
		}
	})
}

// A lost answer to an increment does not lose the anchor.
func TestAnchorGoesOnWhenTheBusBreaks(t *testing.T) {
	tpm, b := newTPM(t)
	source, _ := sealNew(t, tpm, bootPCRs)
	store, err := sealed.OpenStore(source)
	must(t, err)
	counter, err := DefineCounter(tpm, DefaultIndex, testAuth())
	must(t, err)
	cfg := sealed.AnchorConfig{Store: store, Path: filepath.Join(t.TempDir(), "anchor"), Counter: counter}
	a, err := sealed.CreateAnchor(cfg)
	must(t, err)
	generation := uint64(0)
	for n := 1; ; n++ {
		generation++
		label := sealed.Label{Slot: sealed.SlotID{1}, Kind: sealed.KindPermanent, Generation: generation, Epoch: a.Epoch()}
		must(t, a.Note(label))
		b.sent, b.fail = 0, n
		err := a.Advance()
		b.fail = 0
		if err == nil {
			break
		}
		if !errors.Is(err, errBus) {
			t.Fatal(err)
		}
		if n%2 == 0 { // the card dies as well
			if a, err = sealed.OpenAnchor(cfg); err != nil {
				t.Fatalf("command %d: %v", n, err)
			}
			must(t, a.Check(label))
		} else {
			must(t, a.Advance())
		}
	}
}

func BenchmarkCounter(b *testing.B) {
	for name, open := range map[string]func(testing.TB) (TPM, *bus){"libtpms": newTPM, "swtpm": newSwtpm} {
		b.Run(name, func(b *testing.B) {
			tpm, _ := open(b)
			c, err := DefineCounter(tpm, DefaultIndex, testAuth())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := c.Increment(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
