// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// plainState opens the permanent state of a card's slot.
func (c *fakeCard) plainState() []byte {
	c.t.Helper()
	key := c.key(c.id)
	seals, err := sealsOf(c.id, &key)
	if err != nil {
		c.t.Fatal(err)
	}
	defer seals.Close()
	d, _, err := openState(seals, c.durable())
	if err != nil {
		c.t.Fatal(err)
	}
	return d.permanent
}

// TestImport: a TPM that comes in clear keeps its identity and its contents, and
// nothing of it is left in clear where the card and others could see it.
func TestImport(t *testing.T) {
	from := newFakeCard(t)
	from.create()
	made := from.plainState()
	to := newFakeCard(t)
	to.id = sealed.SlotID{2}
	s := to.setup()
	s.Flags, s.BlobLen = wire.Import, uint32(len(made))
	l := to.start()
	l.give(s, made, -1, -1)
	r := <-l.ready
	<-l.exited
	if r.Status != abi.StatusOK {
		t.Fatalf("import: %+v", r)
	}
	seed := made[len(made)/2 : len(made)/2+32]
	if bytes.Contains(l.mem, seed) || bytes.Contains(to.durable(), seed) {
		t.Error("the state is left in clear")
	}
	l.end()
	again := to.plainState()
	other := newFakeCard(t)
	other.id = sealed.SlotID{3}
	s = other.setup()
	s.Flags, s.BlobLen = wire.Import, uint32(len(again))
	if second := other.make(s, again); second.Status != abi.StatusOK || cmp.Diff(r.EKs, second.EKs) != "" {
		t.Errorf("imported again: %+v, want the keys of %+v", second, r)
	}
}

// TestImportRefused: what is no TPM makes no slot.
func TestImportRefused(t *testing.T) {
	from := newFakeCard(t)
	from.create()
	made := from.plainState()
	for name, b := range map[string][]byte{
		"a byte":       {1},
		"zeros":        make([]byte, 1300),
		"cut":          made[:len(made)-100],
		"sealed state": from.durable(),
	} {
		to := newFakeCard(t)
		to.id = sealed.SlotID{2}
		s := to.setup()
		s.Flags, s.BlobLen = wire.Import, uint32(len(b))
		if r := to.make(s, b); r.Status != abi.StatusCorrupt || to.count() != 0 {
			t.Errorf("%s: %+v and %d saves, want a refusal", name, r, to.count())
		}
	}
}
