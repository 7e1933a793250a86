// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
)

// TestEvidence: what the manager puts together holds for a verifier.
func TestEvidence(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		same, other := r.newMachine("vm-a", 0x10), r.newMachine("vm-b", 0x20)
		r.pass(r.cfg.poll())
		r.problems()
		for _, tc := range []struct {
			m       *machine
			channel string
			asked   attest.Mode
			want    attest.Mode
		}{
			{same, "vm-a", "", attest.ModeMap},
			{same, "", "", attest.ModeMap},
			{other, "vm-b", "", attest.ModeEvidence},
			{other, "vm-b", attest.ModeOff, attest.ModeOff},
			{same, "vm-a", attest.ModeEvidence, attest.ModeEvidence},
		} {
			req := request(r, nonce, tc.m.layer(r, nonce))
			req.PCRMap = string(tc.asked)
			ev, err := r.ask(tc.channel, req)
			if err != nil {
				r.Fatalf("%s: %v", tc.m.name, err)
			}
			if res := r.holds(ev); ev.PCRMap != tc.want || res.Machine != tc.m.name || res.Host != "host-1" {
				r.Errorf("mode %s, machine %s on %s, want %s, %s on host-1", ev.PCRMap, res.Machine, res.Host, tc.want, tc.m.name)
			}
		}
	})
}

// TestEvidenceRefused: nothing but a machine's own quote, on its own channel, with its
// own slot, costs a quote of the host.
func TestEvidenceRefused(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		a, b := r.newMachine("vm-a", 0x10), r.newMachine("vm-b", 0x10)
		gone := r.newMachine("vm-gone", 0x10)
		again := r.newMachine("vm-again", 0x10)
		foreign := r.beside("vm-a", 0x10, r.card.slots["vm-b"])
		r.pass(r.cfg.poll())
		r.card.remove("vm-gone")
		r.card.remove("vm-again")
		r.card.add("vm-again")
		stranger := newRig(r.TB).newMachine("vm-a", 0x10)
		quotes := r.pcrs.count()
		changed := func(f func(m *attest.Machine)) *door.EvidenceRequest {
			m := a.layer(r, nonce)
			f(m)
			return request(r, nonce, m)
		}
		for name, tc := range map[string]struct {
			channel string
			req     *door.EvidenceRequest
			want    error
		}{
			"another machine's quote":         {"vm-a", request(r, nonce, b.layer(r, nonce)), ErrDenied},
			"a quote of another nonce":        {"vm-a", &door.EvidenceRequest{Nonce: make([]byte, 32), VM: request(r, nonce, a.layer(r, nonce)).VM}, ErrDenied},
			"a short nonce":                   {"vm-a", &door.EvidenceRequest{Nonce: []byte{1}, VM: request(r, nonce, a.layer(r, nonce)).VM}, ErrRequest},
			"other PCRs":                      {"vm-a", changed(func(m *attest.Machine) { m.PCRs.Set("sha256", 0, make([]byte, 32)) }), ErrDenied},
			"a changed signature":             {"vm-a", changed(func(m *attest.Machine) { m.Quote.Signature[20] ^= 1 }), ErrDenied},
			"another machine's certificate":   {"vm-a", changed(func(m *attest.Machine) { m.Chain = b.chain }), ErrDenied},
			"no chain":                        {"vm-a", changed(func(m *attest.Machine) { m.Chain = "" }), ErrRequest},
			"no JSON":                         {"vm-a", &door.EvidenceRequest{Nonce: nonce, VM: json.RawMessage(`{"chain":1}`)}, ErrRequest},
			"nothing":                         {"vm-a", &door.EvidenceRequest{Nonce: nonce}, ErrRequest},
			"a mode that there is not":        {"vm-a", &door.EvidenceRequest{Nonce: nonce, PCRMap: "maybe", VM: request(r, nonce, a.layer(r, nonce)).VM}, ErrRequest},
			"an AIK beside a foreign EK":      {"vm-a", request(r, nonce, foreign.layer(r, nonce)), ErrDenied},
			"an authority that nobody knows":  {"", request(r, nonce, stranger.layer(r, nonce)), ErrDenied},
			"a slot that is gone":             {"vm-gone", request(r, nonce, gone.layer(r, nonce)), ErrNotFound},
			"a slot with an older one's name": {"vm-again", request(r, nonce, again.layer(r, nonce)), ErrDenied},
		} {
			if ev, err := r.ask(tc.channel, tc.req); ev != nil || !errors.Is(err, tc.want) {
				r.Errorf("%s: %v, want %v", name, err, tc.want)
			}
		}
		if n := r.pcrs.count(); n != quotes {
			r.Errorf("refusals cost %d quotes of the host", n-quotes)
		}
	})
}

// TestEvidenceUnavailable: what the host lacks it says.
func TestEvidenceUnavailable(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.cfg.Poll = time.Hour
		r.authority.set(func(f *fakeAuthority) { f.err = errTest })
		r.start()
		a := r.newMachine("vm-a", 0x10)
		ask := func(what string) {
			r.Helper()
			if _, err := r.ask("vm-a", request(r, nonce, a.layer(r, nonce))); !errors.Is(err, ErrUnavailable) {
				r.Errorf("%s: %v, want ErrUnavailable", what, err)
			}
		}
		ask("no certificate of the host")
		r.authority.set(func(f *fakeAuthority) { f.err = nil })
		r.pass(time.Hour)
		if _, err := r.ask("vm-a", request(r, nonce, a.layer(r, nonce))); err != nil {
			r.Fatal(err)
		}
		r.pcrs.fail(errTest)
		ask("the TPM does not quote")
		r.pcrs.fail(nil)
		r.card.leave(true)
		ask("the card is away")
		r.card.leave(false)
		r.authority.set(func(f *fakeAuthority) { f.err = errTest })
		r.pass(hostLife)
		a = r.beside("vm-a", 0x10, r.card.slots["vm-a"])
		ask("the host's certificate has ended")
	})
}

// TestLimit: a machine that asks without end gets its share, and others get theirs.
func TestLimit(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		a, b := r.newMachine("vm-a", 0x10), r.newMachine("vm-b", 0x10)
		r.pass(r.cfg.poll())
		r.share(func(int) error {
			_, err := r.ask("", request(r, nonce, a.layer(r, nonce)))
			return err
		})
		if _, err := r.ask("", request(r, nonce, b.layer(r, nonce))); err != nil {
			r.Errorf("another machine: %v", err)
		}
	})
}

// share asks for a machine's quotes without end: it gets its share.
func (r *rig) share(ask func(n int) error) {
	r.Helper()
	got := 0
	for n := range 100 {
		if err := ask(n); err == nil {
			got++
		} else if !errors.Is(err, ErrBusy) {
			r.Fatal(err)
		}
		r.pass(100 * time.Millisecond)
	}
	if want := 5 + 10/2; got < want-1 || got > want {
		r.Errorf("%d quotes in ten seconds, want %d", got, want)
	}
}

// token gives the host its token.
func token(r *rig) { r.cfg.Token = func() (string, error) { return "token", nil } }

// poll is longer than the manager's.
func (c *Config) poll() time.Duration { return 5 * time.Second }
