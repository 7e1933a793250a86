// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"hwvtpm/vtpm/door"
)

// TestGuestEnrols: the host vouches for the keys of its own slots, and for nothing else.
func TestGuestEnrols(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		r.authority.set(func(f *fakeAuthority) { f.machines["vm-a"] = newKey(r).Public() })
		r.card.add("vm-a")
		r.card.add("vm-b")
		a, err := r.m.EKs(r.Context(), "vm-a")
		if err != nil {
			r.Fatal(err)
		}
		b, err := r.m.EKs(r.Context(), "vm-b")
		if err != nil {
			r.Fatal(err)
		}
		vmA, vmB, nobody := door.Caller{VM: "vm-a"}, door.Caller{VM: "vm-b"}, door.Caller{}
		for name, tc := range map[string]struct {
			caller door.Caller
			req    door.EnrolRequest
			want   error
		}{
			"another's name":       {vmA, door.EnrolRequest{Name: "vm-b"}, ErrDenied},
			"another's key":        {vmA, door.EnrolRequest{Name: "vm-a", EKCertificate: b[0].Certificate}, ErrDenied},
			"no certificate":       {vmA, door.EnrolRequest{EKCertificate: []byte{0x30, 0}}, ErrRequest},
			"no such machine":      {nobody, door.EnrolRequest{Name: "vm-c"}, ErrNotFound},
			"no name":              {nobody, door.EnrolRequest{}, ErrNotFound},
			"a name that can't be": {nobody, door.EnrolRequest{Name: "../vm-a"}, ErrNotFound},
		} {
			if _, err := r.m.Enrol(r.Context(), tc.caller, &tc.req); !errors.Is(err, tc.want) {
				r.Errorf("%s: %v, want %v", name, err, tc.want)
			}
		}
		if n, _ := r.authority.count(KindVTPM); n != 0 {
			r.Errorf("refusals cost %d questions to the authority", n)
		}
		padded := append(slices.Clone(a[0].Certificate), make([]byte, 100)...) // as NV has it
		c, err := r.m.Enrol(r.Context(), vmA, &door.EnrolRequest{EKCertificate: padded, AKPublic: []byte("AK"), Token: "mine"})
		if err != nil {
			r.Fatal(err)
		}
		asked := r.authority.asked[len(r.authority.asked)-1]
		if asked.Name != "vm-a" || asked.TLS == nil || asked.Token != "mine" || len(asked.EKChain) != 3 || !slices.Equal(asked.EKCertificate, a[0].Certificate) {
			r.Errorf("the authority was asked %+v", asked)
		}
		proof := &door.Proof{ID: c.ID, Secret: []byte("blobsecret")}
		if _, err := r.m.Prove(r.Context(), vmB, proof); !errors.Is(err, ErrDenied) {
			r.Errorf("another machine's proof: %v, want ErrDenied", err)
		}
		got, err := r.m.Prove(r.Context(), vmA, proof)
		if err != nil || !strings.Contains(got.Certificate, "BEGIN CERTIFICATE") {
			r.Fatalf("Prove: %+v, %v", got, err)
		}
		if _, err := r.m.Prove(r.Context(), vmA, proof); !errors.Is(err, ErrDenied) {
			r.Errorf("the same proof again: %v, want ErrDenied", err)
		}
		if vm, err := r.m.VM(r.Context(), "vm-a"); err != nil || vm.AIK != got.Certificate+got.Chain {
			r.Errorf("VM: %+v, %v", vm, err)
		}
	})
}

// TestGuestEnrolsTooOften: the authority counts for the host, so the host counts for
// its machines.
func TestGuestEnrolsTooOften(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		r.card.add("vm-a")
		busy := 0
		for range 100 {
			if _, err := r.m.Enrol(r.Context(), door.Caller{VM: "vm-a"}, &door.EnrolRequest{}); errors.Is(err, ErrBusy) {
				busy++
			} else if err != nil {
				r.Fatal(err)
			}
		}
		if n, _ := r.authority.count(KindVTPM); n != enrolBurst || busy != 100-enrolBurst {
			r.Errorf("the authority was asked %d times, and %d were turned away", n, busy)
		}
		r.pass(enrolEvery)
		if _, err := r.m.Enrol(r.Context(), door.Caller{VM: "vm-a"}, &door.EnrolRequest{}); err != nil {
			r.Errorf("later: %v", err)
		}
		for said, want := range map[error]error{ErrRefused: ErrDenied, ErrBusy: ErrBusy, errTest: ErrUnavailable} {
			r.authority.set(func(f *fakeAuthority) { f.err = said })
			r.pass(enrolEvery)
			if _, err := r.m.Enrol(r.Context(), door.Caller{VM: "vm-a"}, &door.EnrolRequest{}); !errors.Is(err, want) {
				r.Errorf("the authority says %v: %v, want %v", said, err, want)
			}
		}
	})
}

// TestWaiting: challenges that wait are bounded, and end.
func TestWaiting(t *testing.T) {
	w, now := newEnrolments(), time.Now()
	w.add("1", enrolment{vm: "a", share: "a"}, now)
	w.add("2", enrolment{vm: "a", share: "a"}, now)
	w.add("3", enrolment{vm: "b", share: "?b"}, now)
	for _, tc := range []struct {
		id, vm string
		ok     bool
	}{{"1", "a", false}, {"3", "a", false}, {"2", "a", true}, {"2", "a", false}, {"3", "", true}} {
		if _, ok := w.take(tc.id, tc.vm, now); ok != tc.ok {
			t.Errorf("take(%s, %s) = %v, want %v", tc.id, tc.vm, ok, tc.ok)
		}
	}
	w.add("4", enrolment{vm: "a", share: "a"}, now)
	if _, ok := w.take("4", "a", now.Add(waitingLife+1)); ok {
		t.Error("a challenge can be met for ever")
	}
	for i := range 3 * maxWaiting {
		name := string(rune(0x4e00 + i))
		w.add(name, enrolment{vm: name, share: name}, now)
	}
	if n := len(w.byID); n > maxWaiting {
		t.Errorf("%d challenges wait, more than %d", n, maxWaiting)
	}
}

// TestDoors: each door has its operations and no others.
func TestDoors(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		r.card.add("vm-a")
		all := []string{door.OpHello, door.OpEK, door.OpEnrol, door.OpProve, door.OpEvidence, door.OpPCRs, door.OpBootEvidence,
			door.OpStatus, door.OpVMs, door.OpVM, "", "no-such"}
		for name, tc := range map[string]struct {
			handler door.Handler
			has     []string
		}{
			"guests":    {r.m.Guests(GuestSocket), []string{door.OpHello, door.OpEK, door.OpEnrol, door.OpProve, door.OpEvidence}},
			"backends":  {r.m.Backends(), []string{door.OpPCRs, door.OpBootEvidence}},
			"operators": {r.m.Operators(), []string{door.OpStatus, door.OpVMs, door.OpVM}},
		} {
			for _, op := range all {
				_, err := tc.handler.Do(r.Context(), door.Caller{VM: "vm-a"}, op, nil)
				e, _ := errors.AsType[*door.Error](err)
				if missing := e != nil && strings.Contains(e.Message, "no such operation"); missing == slices.Contains(tc.has, op) {
					r.Errorf("%s: %q: %v", name, op, err)
				}
			}
		}
		if _, err := r.m.Guests(GuestSocket).Do(r.Context(), door.Caller{}, door.OpEK, nil); door.Code(err) != door.CodeDenied {
			r.Errorf("ek on nobody's channel: %v", err)
		}
		r.card.leave(true)
		if _, err := r.m.Guests(GuestSocket).Do(r.Context(), door.Caller{VM: "vm-a"}, door.OpEK, nil); door.Code(err) != door.CodeUnavailable || strings.Contains(err.Error(), errTest.Error()) {
			r.Errorf("a guest is told of the host's inside: %v", err)
		}
		if _, err := r.m.Operators().Do(r.Context(), door.Caller{}, door.OpVM, []byte(`{"name":"vm-b"}`)); !strings.Contains(err.Error(), errTest.Error()) {
			r.Errorf("an operator is not told why: %v", err)
		}
		if got := r.m.Summary(); !strings.HasPrefix(got, "1 machines") {
			r.Errorf("summary %q", got)
		}
	})
}

// TestRequests: a machine that asks without end is told to wait, and no other is.
func TestRequests(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		guests := r.m.Guests(GuestSocket)
		ask := func(vm string) string {
			_, err := guests.Do(r.Context(), door.Caller{VM: vm}, door.OpHello, nil)
			if err == nil {
				return ""
			}
			return door.Code(err)
		}
		for range requestBurst {
			if code := ask("vm-a"); code != "" {
				r.Fatal(code)
			}
		}
		if a, b := ask("vm-a"), ask("vm-b"); a != door.CodeBusy || b != "" {
			r.Errorf("vm-a: %q, vm-b: %q, want busy and an answer", a, b)
		}
		time.Sleep(requestEvery)
		if code := ask("vm-a"); code != "" {
			r.Errorf("later: %s", code)
		}
	})
}
