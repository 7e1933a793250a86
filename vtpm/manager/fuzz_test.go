// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"encoding/json"
	"testing"

	"hwvtpm/vtpm/door"
)

// FuzzGuests: whatever a guest sends is answered, and costs no quote of the host.
func FuzzGuests(f *testing.F) {
	r := newRig(f)
	if err := r.cfg.setDefaults(); err != nil {
		f.Fatal(err)
	}
	m, err := New(r.cfg)
	if err != nil {
		f.Fatal(err)
	}
	a := r.newMachine("vm-a", 0x10)
	m.setLink(&link{card: must(r.card.connect(f.Context())), serial: "card"})
	f.Add(door.OpEvidence, must(json.Marshal(request(f, nonce, a.layer(f, nonce)))))
	f.Add(door.OpEnrol, []byte(`{"name":"vm-a","ek-certificate":"MAA=","ek-chain":[],"ak-public":"AAA="}`))
	f.Add(door.OpProve, []byte(`{"id":"1","secret":"AAAA"}`))
	f.Add(door.OpHello, []byte(`{}`))
	f.Add(door.OpEK, []byte(nil))
	guests := m.Guests(GuestSocket)
	f.Fuzz(func(t *testing.T, op string, body []byte) {
		got, err := guests.Do(context.Background(), door.Caller{VM: "vm-a", UID: -1}, op, body)
		if err == nil && op != door.OpHello {
			t.Errorf("%s %q: %v", op, body, got)
		}
		if n := r.pcrs.count(); n != 0 {
			t.Errorf("%s %q cost %d quotes", op, body, n)
		}
	})
}
