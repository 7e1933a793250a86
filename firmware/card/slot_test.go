// SPDX-License-Identifier: Apache-2.0

package card

import (
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

func TestSlotLivesThroughAll(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	info := r.create("a")
	if info.Life != abi.LifeClosed || info.Name != "a" || info.Generation != 1 {
		t.Errorf("new slot: %+v", info)
	}
	c := r.open("a")
	c.want(t, "add", "1")
	r.await("a", abi.LifeLive)
	must(t, r.on(abi.OpSlotPark, "a", nil))
	r.await("a", abi.LifeParked)
	c.want(t, "add", "2")
	r.await("a", abi.LifeLive)
	c.close()
	r.await("a", abi.LifeClosed)
	must(t, r.Close())
	must(t, r.Close())

	r = openCard(t, cfg)
	if got := r.show("a"); got.ID != info.ID || got.Generation != 3 {
		t.Errorf("after a restart: %+v", got)
	}
	c = r.open("a")
	c.want(t, "add", "3")
	c.close()
	r.await("a", abi.LifeClosed)
	_, err := r.destroy("a")
	must(t, err)
	_, err = r.tryOpen("a")
	wantStatus(t, err, abi.StatusNoSlot)
}

// A slot's name and number are free in the table before the card forgets the slot:
// one that is made in between stays.
func TestNameIsTakenWhileDestroyed(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	old, err := r.named("a")
	must(t, err)
	must(t, r.store.Remove(old.rec.ID))
	// A creation that began before "a" was there goes on.
	label, blob := seal(t, r, sealed.SlotID{7})
	rec := old.rec
	rec.ID = label.Slot
	rec, err = r.store.Create(rec, blob, nil, 10)
	must(t, err)
	made := newSlot(r.Card, rec)
	r.insert(made)
	r.forget(old)
	if s, err := r.named("a"); s != made {
		t.Errorf("the new slot cannot be found by name: %v", err)
	}
	if s, err := r.numbered(rec.Number); s != made {
		t.Errorf("the new slot cannot be found by number: %v", err)
	}
}

// seal makes a first state of a slot.
func seal(t *testing.T, r *rig, id sealed.SlotID) (sealed.Label, []byte) {
	t.Helper()
	key, err := r.store.SlotKey(id)
	must(t, err)
	s, err := sealed.NewSlot(id, key)
	must(t, err)
	defer s.Close()
	l := sealed.Label{Slot: id, Kind: sealed.KindPermanent, Generation: 1, Epoch: r.store.Epoch()}
	blob, err := s.Seal(nil, l.Kind, l.Generation, l.Epoch, []byte("state"))
	must(t, err)
	return l, blob
}
