// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/wire"
)

// withCertificates answers with some bytes for each key, and for the chain.
func withCertificates(has []abi.EKCertificate, _ []byte) ([]abi.EKCertificate, []byte) {
	for i := range has {
		has[i].Index, has[i].DER = abi.CertificateIndex(has[i].Handle), bytes.Repeat([]byte{byte(i + 1)}, 900)
	}
	return has, bytes.Repeat([]byte{0xcc}, 2100)
}

// madeWithKey is a card with a slot that has a P-256 endorsement key, and what the
// worker told that made it.
func madeWithKey(t *testing.T) *fakeCard {
	t.Helper()
	c := newFakeCard(t)
	c.certify = withCertificates
	s := c.setup()
	s.Flags, s.BlobLen, s.Keys, s.Banks = wire.Create|wire.Certifies, 0, abi.KeyP256EK, abi.BankSHA256
	if r := c.make(s, nil); r.Status != abi.StatusOK || len(r.EKs) != 1 || c.count() != 1 {
		t.Fatalf("create: %+v in %d saves", r, c.count())
	}
	return c
}

// recertify has a worker write certificates.
func (c *fakeCard) recertify() wire.Ready {
	c.t.Helper()
	s := c.setup()
	s.Flags |= wire.Recertify | wire.Certifies
	return c.make(s, c.durable())
}

// boot opens the slot for a guest, in a run of its own, and starts the TPM.
func (c *fakeCard) boot(run byte) (*client, *life) {
	c.t.Helper()
	k := newClient(c.t)
	l := c.open(k, nil)
	k.greet(run)
	k.tpm.Startup()
	return k, l
}

// present gives what is in an index, as the guest reads it.
func present(k *client, index uint32) []byte {
	k.t.Helper()
	b, err := tpmtest.ReadIndex(k.tpm, index)
	if err != nil {
		k.t.Error(err)
	}
	return b
}

func TestMakerWritesCertificates(t *testing.T) {
	c := madeWithKey(t)
	k, l := c.boot(1)
	if b := present(k, abi.IndexP256EK); !bytes.Equal(b, bytes.Repeat([]byte{1}, 900)) {
		t.Errorf("certificate %x", b)
	}
	if b := present(k, abi.IndexEKChain+1); !bytes.Equal(b, bytes.Repeat([]byte{0xcc}, 2100-2048)) {
		t.Errorf("end of the chain %x", b)
	}
	l.end()
}

// TestRecertify: one save, of the next generation, which has what the guest has
// stored and what the card gave.
func TestRecertify(t *testing.T) {
	c := madeWithKey(t)
	k, l := c.boot(1)
	k.tpm.DefineNV(tpmtest.NVBase, 4)
	k.tpm.WriteNV(tpmtest.NVBase, []byte("keep"))
	l.end()
	if r := c.recertify(); r.Status != abi.StatusInUse {
		t.Errorf("while the run may go on: %+v", r)
	}
	k = newClient(t)
	l = c.open(k, nil)
	k.greet(1)
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(k.tpm); err != nil {
		t.Fatal(err)
	}
	l.end()
	before, saves := c.durable(), c.count()
	c.certify = func(has []abi.EKCertificate, chain []byte) ([]abi.EKCertificate, []byte) {
		if len(has) != 1 || has[0].Index != abi.IndexP256EK || len(has[0].DER) != 900 || len(chain) != 2100 {
			t.Errorf("it has %+v, and a chain of %d bytes", has, len(chain))
		}
		has[0].DER = []byte("new")
		return has, nil
	}
	c.onSave(func(*life, []byte) abi.Status { return abi.StatusStorage })
	if r := c.recertify(); r.Status != abi.StatusStorage || !bytes.Equal(c.durable(), before) {
		t.Errorf("not saved: %+v", r)
	}
	c.onSave(nil)
	if r := c.recertify(); r.Status != abi.StatusOK || c.count() != saves+2 || r.Generation != c.used || len(r.EKs) != 1 {
		t.Errorf("recertify: %+v in %d saves", r, c.count()-saves)
	}
	seq := k.seq
	if k, l = c.boot(2); k.seq <= seq {
		t.Errorf("sequence number %d after %d", k.seq, seq)
	}
	if b := present(k, abi.IndexP256EK); string(b) != "new" {
		t.Errorf("certificate %q", b)
	}
	if b := k.tpm.ReadNV(tpmtest.NVBase, 4); string(b) != "keep" {
		t.Errorf("the guest's index has %q", b)
	}
	l.end()
}

// TestRecertifyAfterBoot: what was a run before the machine's boot is over.
func TestRecertifyAfterBoot(t *testing.T) {
	c := madeWithKey(t)
	_, l := c.boot(1)
	l.end()
	s := c.setup()
	s.Flags, s.Boot = s.Flags|wire.Recertify|wire.Certifies, [16]byte{8}
	if r := c.make(s, c.durable()); r.Status != abi.StatusOK {
		t.Errorf("recertify: %+v", r)
	}
}

// TestRecertifyRolledBack: an older state is not certified into a newer one.
func TestRecertifyRolledBack(t *testing.T) {
	c := madeWithKey(t)
	s := c.setup()
	s.Flags |= wire.Recertify | wire.Certifies
	s.MinGeneration++
	if r := c.make(s, c.durable()); r.Status != abi.StatusRollback || c.count() != 1 {
		t.Errorf("recertify: %+v", r)
	}
}

// TestCardThatDoesNotCertify: a worker asks only a card that knows what that is.
func TestCardThatDoesNotCertify(t *testing.T) {
	c := newFakeCard(t)
	c.certify = func([]abi.EKCertificate, []byte) ([]abi.EKCertificate, []byte) {
		t.Error("it was asked")
		return nil, nil
	}
	c.create()
}

// TestImportKeepsNV: unless the card says otherwise, which it does not.
func TestImportKeepsNV(t *testing.T) {
	from := madeWithKey(t)
	state := from.plainState()
	to := newFakeCard(t)
	to.id[0]++
	to.certify = func(has []abi.EKCertificate, _ []byte) ([]abi.EKCertificate, []byte) {
		for i := range has {
			has[i].Index, has[i].DER = 0, []byte("beside")
		}
		return has, nil
	}
	s := to.setup()
	s.Flags, s.BlobLen = wire.Import|wire.Certifies, uint32(len(state))
	if r := to.make(s, state); r.Status != abi.StatusOK {
		t.Fatalf("import: %+v", r)
	}
	k, l := to.boot(1)
	if b := present(k, abi.IndexP256EK); !bytes.Equal(b, bytes.Repeat([]byte{1}, 900)) {
		t.Errorf("certificate %x", b)
	}
	l.end()
}
