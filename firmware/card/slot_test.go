// SPDX-License-Identifier: Apache-2.0

package card

import (
	"testing"

	"hwvtpm/coproc/abi"
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
