// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"hwvtpm/vtpm/door"
)

// TestNobodysShare: who asks for a machine where no machine has a channel, with its name or
// an old quote of it, costs the machine's own channel nothing.
func TestNobodysShare(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		a := r.newMachine("vm-a", 0x10)
		r.authority.set(func(f *fakeAuthority) { f.machines["vm-a"] = newKey(r).Public() })
		r.pass(r.cfg.poll())
		nobody, own := door.Caller{UID: -1}, door.Caller{VM: "vm-a", UID: -1}
		enrol := func(who door.Caller) (*door.Challenge, error) {
			return r.m.Enrol(r.Context(), who, &door.EnrolRequest{Name: "vm-a", AKPublic: []byte("AK")})
		}
		c, err := enrol(own)
		if err != nil {
			r.Fatal(err)
		}
		old := request(r, nonce, a.layer(r, nonce))
		for what, ask := range map[string]func() error{
			"enrol":    func() error { _, err := enrol(nobody); return err },
			"evidence": func() error { _, err := r.ask("", old); return err },
		} {
			for err = ask(); err == nil; {
				err = ask()
			}
			if !errors.Is(err, ErrBusy) {
				r.Errorf("%s by nobody without end: %v, want ErrBusy", what, err)
			}
		}
		if _, err := r.m.Prove(r.Context(), own, &door.Proof{ID: c.ID, Secret: []byte("blobsecret")}); err != nil {
			r.Errorf("the machine meets its challenge: %v", err)
		}
		if _, err := enrol(own); err != nil {
			r.Errorf("the machine enrols: %v", err)
		}
		if _, err := r.ask("vm-a", old); err != nil {
			r.Errorf("the machine asks for evidence: %v", err)
		}
	})
}

// TestGoneCallers: who asks and hangs up while others are checked fills no log.
func TestGoneCallers(t *testing.T) {
	r := newRig(t)
	m := must(New(r.cfg))
	for range cap(m.checks) {
		m.checks <- struct{}{}
	}
	r.log.Reset()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Guests(GuestSocket).Do(gone, door.Caller{UID: -1}, door.OpEvidence, nil); door.Code(err) != door.CodeUnavailable {
		t.Errorf("%v, want %s", err, door.CodeUnavailable)
	}
	r.pcrs.slow = time.Hour
	boot := must(json.Marshal(door.BootEvidenceRequest{Slot: "vm-a", Run: make([]byte, 32)}))
	if _, err := m.Backends().Do(gone, door.Caller{UID: -1}, door.OpBootEvidence, boot); door.Code(err) != door.CodeUnavailable {
		t.Errorf("%v, want %s", err, door.CodeUnavailable)
	}
	if r.log.Len() != 0 {
		t.Errorf("the log has %s", r.log.String())
	}
}
