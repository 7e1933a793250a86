// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// TestManySlots: slots work beside each other, each with its own state, also
// while the function is reset under all of them.
func TestManySlots(t *testing.T) {
	const n, rounds = 6, 12
	d := startCoprocd(t)
	card := d.open()
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("vm-%d", i))
	}
	d.create(card, names...)
	var tpms [n]*tpmtest.TPM
	for i, name := range names {
		_, tpms[i] = startSlot(t, card, name)
	}
	var wg sync.WaitGroup
	for i, tpm := range tpms {
		wg.Go(func() {
			var pcr tpmtest.Digest
			for j := range rounds {
				event := fmt.Sprintf("%s event %d", names[i], j)
				tpm.Extend(10, event)
				pcr = tpmtest.Extended(pcr, event)
				if i == 0 && j == rounds/2 {
					card.fn.mu.Lock()
					err := card.fn.write(abi.RegControl, abi.ControlReset)
					card.fn.mu.Unlock()
					if err != nil {
						t.Error(err)
					}
				}
				if got := tpm.PCR(10); got != pcr {
					t.Errorf("PCR 10 of %s = %x, want %x", names[i], got, pcr)
					return
				}
			}
		})
	}
	wg.Wait()
	list, err := admin.New(card).List(t.Context())
	if err != nil || len(list) != n {
		t.Errorf("List: %d slots, %v, want %d", len(list), err, n)
	}
}

// TestWrongKey: a slot opens to its own access key only.
func TestWrongKey(t *testing.T) {
	d := startCoprocd(t)
	card := d.open()
	d.create(card, "a", "b")
	cfg := d.config()
	cfg.Key = func(string) (ed25519.PrivateKey, error) { return d.key("b") }
	card.Close()
	thief, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	if _, err := thief.OpenSlot(t.Context(), "a"); !errors.Is(err, coproc.ErrDenied) {
		t.Errorf("OpenSlot with the key of another slot: %v, want ErrDenied", err)
	}
	s, err := thief.OpenSlot(t.Context(), "b")
	if err != nil {
		t.Fatalf("OpenSlot with the right key: %v", err)
	}
	s.Close()
}
