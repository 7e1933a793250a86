// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/door"
)

// TestCardComesBack: a card that was away is connected again and has its certificates.
func TestCardComesBack(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.card.leave(true)
		r.start()
		r.problems("not reached", "test failure")
		r.card.leave(false)
		r.pass(time.Minute)
		r.problems()
		r.card.leave(true)
		r.pass(time.Minute)
		r.problems("not reached", "test failure")
		r.card.leave(false)
		r.pass(time.Minute)
		r.problems()
		if r.card.given != 2 {
			r.Errorf("the card was given certificates %d times, want 2", r.card.given)
		}
		if n := r.pcrs.count(); n != 1 {
			r.Errorf("the host's TPM has quoted %d times over one card, want once", n)
		}
		if strings.Contains(r.log.String(), "ANOTHER KEY") {
			r.Error("the card is taken for another one")
		}
	})
}

// TestOtherCard: a card with another key gets a certificate of its own, loudly, and so
// do its slots.
func TestOtherCard(t *testing.T) {
	for name, restart := range map[string]func(r *rig){
		"while it runs": func(r *rig) { r.card.leave(false) },
		"between runs": func(r *rig) {
			r.stop()
			r.card.leave(false)
			r.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				token(r)
				r.start()
				a := r.newMachine("vm-a", 0x10)
				r.pass(r.cfg.poll())
				before := r.m.Status()
				r.card.leave(true)
				r.pass(time.Minute)
				r.card.replace(newKey(r))
				restart(r)
				r.pass(time.Minute)
				now := r.m.Status()
				if now.Card == before.Card || now.CardAIK.Key == before.CardAIK.Key || !strings.Contains(r.log.String(), "ANOTHER KEY") {
					r.Errorf("card %s, %+v; before %s, %+v", now.Card, now.CardAIK, before.Card, before.CardAIK)
				}
				ev, err := r.ask("vm-a", request(r, nonce, a.layer(r, nonce)))
				if err != nil {
					r.Fatal(err)
				}
				r.holds(ev)
			})
		})
	}
}

// TestCardRefuses: a card that is not certified is no reason to know no slots.
func TestCardRefuses(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.pcrs.fail(errTest)
		r.start()
		r.card.add("vm-a")
		r.pass(r.cfg.poll())
		if vms := r.m.VMs(); !slices.Equal(vms, []string{"vm-a"}) {
			r.Errorf("machines %q", vms)
		}
		if _, err := r.m.EKs(r.Context(), "vm-a"); !errors.Is(err, ErrUnavailable) {
			r.Errorf("EKs: %v, want ErrUnavailable", err)
		}
		r.pcrs.fail(nil)
		r.pass(time.Minute)
		r.problems()
		if eks, err := r.m.EKs(r.Context(), "vm-a"); err != nil || len(eks) != 1 {
			r.Errorf("EKs: %d, %v", len(eks), err)
		}
	})
}

// TestOpenSlot: a slot that was open before the card had certificates gets them when it
// is closed, and one that nobody has when it is asked for.
func TestOpenSlot(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.card.add("vm-open")
		r.card.add("vm-a")
		r.card.live("vm-open", abi.LifeLive)
		r.start()
		r.problems("slot vm-open")
		if _, err := r.m.EKs(r.Context(), "vm-open"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "live") {
			r.Errorf("EKs of an open slot: %v, want ErrUnavailable", err)
		}
		if eks, err := r.m.EKs(r.Context(), "vm-a"); err != nil || len(eks) != 1 || len(eks[0].Chain) != 3 {
			r.Errorf("EKs: %+v, %v", eks, err)
		}
		r.card.live("vm-open", abi.LifeClosed)
		r.pass(r.cfg.poll())
		r.problems()
		eks, err := r.m.EKs(r.Context(), "vm-open")
		if err != nil || len(eks) != 1 {
			r.Fatalf("EKs: %d, %v", len(eks), err)
		}
		cert := must(x509.ParseCertificate(eks[0].Certificate))
		if err := cert.CheckSignatureFrom(must(x509.ParseCertificate(eks[0].Chain[0]))); err != nil {
			r.Error(err)
		}
	})
}

// TestSlotsComeAndGo: who wants to know is told, in order, and files come and go.
func TestSlotsComeAndGo(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		var told []string
		r.cfg.Slots = func(names []string) { told = append(told, strings.Join(names, " ")) }
		stale := filepath.Join(r.cfg.Certificates, dirVMs, "vm-old"+suffixEK)
		if err := errors.Join(os.MkdirAll(filepath.Dir(stale), 0o755), os.WriteFile(stale, nil, 0o644)); err != nil {
			r.Fatal(err)
		}
		r.start()
		a := r.newMachine("vm-a", 0x10)
		if eks, err := r.m.EKs(r.Context(), "vm-a"); err != nil || len(eks) != 1 {
			r.Errorf("EKs of a slot that was made just now: %d, %v", len(eks), err)
		}
		r.pass(r.cfg.poll())
		if _, err := r.ask("", request(r, nonce, a.layer(r, nonce))); err != nil {
			r.Fatal(err)
		}
		for _, name := range []string{"host.pem", "coprocessor.pem", "vm/vm-a.ek.pem", "vm/vm-a.aik.pem"} {
			if text, err := os.ReadFile(filepath.Join(r.cfg.Certificates, name)); err != nil || !strings.Contains(string(text), "BEGIN CERTIFICATE") {
				r.Errorf("%s: %q, %v", name, text, err)
			}
		}
		vm, err := r.m.VM(r.Context(), "vm-a")
		if err != nil || len(vm.EKs) != 1 || vm.AIK == "" || len(vm.Statement) == 0 || vm.Open {
			r.Errorf("VM: %+v, %v", vm, err)
		}
		r.card.add("vm-b")
		r.pass(r.cfg.poll())
		r.card.remove("vm-a")
		r.pass(r.cfg.poll())
		if want := []string{"", "vm-a", "vm-a vm-b", "vm-b"}; !slices.Equal(told, want) {
			r.Errorf("told %q, want %q", told, want)
		}
		left := must(os.ReadDir(filepath.Join(r.cfg.Certificates, dirVMs)))
		if len(left) != 1 || left[0].Name() != "vm-b.ek.pem" {
			r.Errorf("files %v", left)
		}
		if _, err := r.m.VM(r.Context(), "vm-a"); !errors.Is(err, ErrNotFound) {
			r.Errorf("VM of a slot that is gone: %v, want ErrNotFound", err)
		}
		r.card.leave(true)
		if vm, err := r.m.VM(r.Context(), "vm-b"); err != nil || vm.Name != "vm-b" {
			r.Errorf("VM while the card is away: %+v, %v", vm, err)
		}
	})
}

// TestCallerGoesAway: the end of a caller's context is not the end of the connection.
func TestCallerGoesAway(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		r.card.add("vm-a")
		ctx, cancel := cardContext(r.Context())
		cancel()
		if _, err := r.m.Enrol(ctx, door.Caller{VM: "vm-a"}, &door.EnrolRequest{}); err != nil {
			r.Errorf("Enrol: %v", err)
		}
	})
}
