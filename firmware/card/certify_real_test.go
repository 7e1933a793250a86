// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/ekcert/ekcerttest"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// readNV reads all of an index as the guest's owner; nil if there is none.
func readNV(t testing.TB, c *client, index uint32) []byte {
	t.Helper()
	b, err := tpmtest.ReadIndex(c, index)
	must(t, err)
	return b
}

// chainOf reads the issuers' certificates.
func chainOf(t testing.TB, c *client) (der []byte) {
	t.Helper()
	for index := abi.IndexEKChain; index < abi.IndexEKChain+4; index++ {
		der = append(der, readNV(t, c, index)...)
	}
	return der
}

// wantCertified checks that a guest finds a certificate of each endorsement key,
// with its chain, and that it is what the card tells. It gives the certificates.
func wantCertified(t testing.TB, r *rig, a *ekcerttest.Authority, c *client, name string, handles ...uint32) (all []*x509.Certificate) {
	t.Helper()
	chain := chainOf(t, c)
	for _, handle := range handles {
		told, err := r.certificate(name, handle)
		must(t, err)
		found := readNV(t, c, abi.CertificateIndex(handle))
		if !bytes.Equal(found, told.DER) || told.Index != abi.CertificateIndex(handle) {
			t.Errorf("%#x: %d bytes in NV, the card tells of %d in %#x", handle, len(found), len(told.DER), told.Index)
		}
		cert, vm := a.Verify(t, found, chain)
		if vm != name {
			t.Errorf("%#x: certificate is for %q, want %q", handle, vm, name)
		}
		read, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(c)
		must(t, err)
		public, err := read.OutPublic.Contents()
		must(t, err)
		key, err := tpm2.Pub(*public)
		must(t, err)
		if same := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !same.Equal(key) {
			t.Errorf("%#x: certificate is of another key", handle)
		}
		if !bytes.Equal(told.Public, read.OutPublic.Bytes()) {
			t.Errorf("%#x: public area %x, the card tells %x", handle, read.OutPublic.Bytes(), told.Public)
		}
		all = append(all, cert)
	}
	return all
}

// full is a slot with all keys.
func (r *rig) createFull(name string) abi.SlotInfo {
	r.t.Helper()
	req := request(name)
	req.Keys = abi.DefaultKeys
	b, _, err := do(r.admin, abi.OpSlotCreate, 0, abi.AppendSlotCreate(nil, req))
	must(r.t, err)
	info, err := abi.ParseSlotInfo(b)
	must(r.t, err)
	return info
}

var allEKs = []uint32{0x81010001, 0x8101000a, 0x81010016}

func TestRealSlotIsCertified(t *testing.T) {
	r := openCard(t, realConfig(t))
	a := certified(t, r)
	source := r.createFull("a")
	c := r.open("a")
	startup(t, c)
	certs := wantCertified(t, r, a, c, "a", allEKs...)
	if certs[0].KeyUsage != x509.KeyUsageKeyEncipherment || certs[1].KeyUsage != x509.KeyUsageKeyAgreement {
		t.Errorf("key usages %#x, %#x", certs[0].KeyUsage, certs[1].KeyUsage)
	}
	shutDown(t, r, c, "a")
	req := request("copy")
	req.Flags, req.Keys = abi.CreateNewIdentity, abi.KeyP256EK
	_, _, err := do(r.admin, abi.OpSlotClone, source.Number, abi.AppendSlotCreate(nil, req))
	must(t, err)
	c = r.open("copy")
	startup(t, c)
	wantCertified(t, r, a, c, "copy", 0x8101000a)
	for _, index := range []uint32{abi.IndexRSAEK, abi.IndexP384EK} {
		if b := readNV(t, c, index); b != nil {
			t.Errorf("the copy has a certificate of the source's in %#x", index)
		}
	}
}

// shutDown ends a guest as its operating system does.
func shutDown(t testing.TB, r *rig, c *client, name string) {
	t.Helper()
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(c); err != nil {
		t.Fatal(err)
	}
	c.close()
	r.await(name, abi.LifeClosed)
}

func TestRealSlotIsCertifiedLater(t *testing.T) {
	r := openCard(t, realConfig(t))
	r.createFull("a")
	c := r.open("a")
	startup(t, c)
	if b := readNV(t, c, abi.IndexP256EK); b != nil || len(chainOf(t, c)) != 0 {
		t.Errorf("certificate of %d bytes without a chain", len(b))
	}
	guests := tpmtest.New(t, c.Send)
	guests.DefineNV(tpmtest.NVBase, 8)
	guests.WriteNV(tpmtest.NVBase, []byte("guest's!"))
	a := certified(t, r)
	wantStatus(t, r.on(abi.OpSlotCertify, "a", nil), abi.StatusInUse)
	c.close()
	r.await("a", abi.LifeClosed)
	wantStatus(t, r.on(abi.OpSlotCertify, "a", nil), abi.StatusInUse) // its run may go on

	c = r.open("a") // the same run, as a driver that was started again
	if b := readNV(t, c, uint32(tpmtest.NVBase)); string(b) != "guest's!" {
		t.Errorf("the guest's index has %q", b)
	}
	shutDown(t, r, c, "a")
	must(t, r.on(abi.OpSlotCertify, "a", nil))
	must(t, r.on(abi.OpSlotCertify, "a", nil))

	c, err := r.tryOpen("a")
	must(t, err)
	must(t, c.powerOnAs("next"))
	startup(t, c)
	wantCertified(t, r, a, c, "a", allEKs...)
	if b := readNV(t, c, uint32(tpmtest.NVBase)); string(b) != "guest's!" {
		t.Errorf("the guest's index has %q", b)
	}
}

// A run that goes on although it was shut down, and the slot was certified since,
// finds no TPM with fresh PCRs.
func TestRealRunEndsWithCertify(t *testing.T) {
	r := openCard(t, realConfig(t))
	certified(t, r)
	r.create("a")
	c := r.open("a")
	startup(t, c)
	shutDown(t, r, c, "a")
	must(t, r.on(abi.OpSlotCertify, "a", nil))
	c, err := r.tryOpen("a")
	must(t, err)
	if err := c.powerOn(); err == nil {
		t.Error("the run is resumed")
	}
	c.close()
	r.await("a", abi.LifeClosed)
	must(t, r.on(abi.OpSlotCertify, "a", nil))
}

func TestRealSleeperIsNotCertified(t *testing.T) {
	r := openCard(t, realConfig(t))
	certified(t, r)
	r.create("a")
	c := r.open("a")
	startup(t, c)
	_, err := tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}.Execute(c)
	must(t, err)
	c.close()
	r.await("a", abi.LifeClosed)
	wantStatus(t, r.on(abi.OpSlotCertify, "a", nil), abi.StatusInUse)
	c, err = r.tryOpen("a")
	must(t, err)
	must(t, c.powerOn())
	if done, err := c.call(abi.OpReset, nil); err != nil || done.Status != abi.StatusOK {
		t.Fatalf("reset: %v, %v", done.Status, err)
	}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUState}).Execute(c); err != nil {
		t.Errorf("it does not wake up: %v", err)
	}
}

// TestRealGuestTakesTheHandle: what a guest puts in the place of its endorsement
// key is not certified, and the key that is gone from there still is.
func TestRealGuestTakesTheHandle(t *testing.T) {
	r := openCard(t, realConfig(t))
	a := certified(t, r)
	r.create("a")
	c := r.open("a")
	startup(t, c)
	const handle = tpm2.TPMHandle(0x8101000a)
	ek, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(c)
	must(t, err)
	evict := func(object tpm2.TPMHandle, name tpm2.TPM2BName) {
		t.Helper()
		_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: object, Name: name}, PersistentHandle: handle}.Execute(c)
		must(t, err)
	}
	evict(handle, ek.Name)
	other, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c)
	must(t, err)
	evict(other.ObjectHandle, other.Name)
	before, err := r.certificate("a", uint32(handle))
	must(t, err)
	shutDown(t, r, c, "a")
	must(t, r.on(abi.OpSlotCertify, "a", nil))
	after, err := r.certificate("a", uint32(handle))
	must(t, err)
	if !bytes.Equal(after.Public, before.Public) || bytes.Equal(after.DER, before.DER) || after.Index != abi.IndexP256EK {
		t.Errorf("before %+v, after %+v", before, after)
	}
	a.Verify(t, after.DER, r.chain.der)
}
