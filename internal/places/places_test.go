// SPDX-License-Identifier: Apache-2.0

package places

import "testing"

// TestPlaces: nobody takes the places of others, and a place is given back once.
func TestPlaces(t *testing.T) {
	p := New(5, 2)
	first, ok := p.Enter("a")
	_, second := p.Enter("a")
	if _, third := p.Enter("a"); !ok || !second || third {
		t.Errorf("one caller enters: %v, %v, %v", ok, second, third)
	}
	for _, who := range []string{"b", "b", "c"} {
		if _, ok := p.Enter(who); !ok {
			t.Errorf("%s is kept out by others", who)
		}
	}
	if _, ok := p.Enter("d"); ok {
		t.Error("one too many enters")
	}
	first()
	first()
	if _, ok := p.Enter("d"); !ok || p.taken != 5 || len(p.by) != 4 {
		t.Errorf("after one left: %v, %d places by %v", ok, p.taken, p.by)
	}
}
