// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/door"
)

// boot asks for what a machine shows in a run.
func (r *rig) boot(slot string, run coproc.RunID) ([]byte, error) {
	got, err := r.m.BootEvidence(r.Context(), door.Caller{UID: -1}, &door.BootEvidenceRequest{Slot: slot, Run: run[:]})
	if err != nil {
		return nil, err
	}
	e, err := bootevidence.Parse(got.Evidence)
	if err != nil {
		return nil, err
	}
	if e.Run != run || e.Slot != slot {
		r.Errorf("evidence of %s, run %x, for %s, run %x", e.Slot, e.Run[:2], slot, run[:2])
	}
	return got.Evidence, e.Verify(r.tpm.Public())
}

// cost gives how many quotes of the host something takes.
func (r *rig) cost(f func()) int {
	before := r.pcrs.count()
	f()
	return r.pcrs.count() - before
}

// TestBootEvidence: it is for a machine's name and a run, and fits an NV index.
func TestBootEvidence(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		for _, tc := range []struct {
			slot string
			run  int
			want error
		}{{"vm-a", 32, nil}, {"vm-of-another-card", 32, nil}, {"vm-a", 31, ErrRequest}, {"../a", 32, ErrRequest}} {
			got, err := r.m.BootEvidence(r.Context(), door.Caller{}, &door.BootEvidenceRequest{Slot: tc.slot, Run: make([]byte, tc.run)})
			if !errors.Is(err, tc.want) || err == nil && len(got.Evidence) > abi.MaxBootEvidence {
				r.Errorf("slot %s, run of %d bytes: %v, want %v", tc.slot, tc.run, err, tc.want)
			}
		}
	})
}

// TestBootLoop: a guest that resets its machine without end has its evidence each time, of
// a known age, and costs the host a quote in each of these ages.
func TestBootLoop(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		age := r.m.cfg.PCRAge
		if n := r.cost(func() {
			for range 30 {
				if _, err := r.boot("vm-a", coproc.RunID{1}); err != nil {
					r.Fatal(err)
				}
				r.pass(age / 10)
			}
		}); n < 2 || n > 4 {
			r.Errorf("a loop of three ages cost %d quotes", n)
		}
	})
}

// TestBootEvidenceIsNotOld: what was given before is not given for another run or machine,
// under another certificate, beyond its age, or with a clock that was set back; nor is a
// failure kept.
func TestBootEvidenceIsNotOld(t *testing.T) {
	inBubble(t, func(r *rig) {
		var back atomic.Int64 // how far the clock was set back
		token(r)
		r.cfg.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		r.start()
		last, err := r.boot("vm-a", coproc.RunID{1})
		if err != nil {
			r.Fatal(err)
		}
		for name, tc := range map[string]struct {
			slot   string
			run    coproc.RunID
			before func()
		}{
			"another machine": {"vm-b", coproc.RunID{1}, func() {}},
			"another run":     {"vm-c", coproc.RunID{2}, func() { _, _ = r.boot("vm-c", coproc.RunID{1}) }},
			"too old":         {"vm-a", coproc.RunID{1}, func() { r.pass(r.m.cfg.PCRAge + time.Second) }},
			"renewed":         {"vm-a", coproc.RunID{1}, func() { id := *r.m.identity(); r.m.setIdentity(&id) }},
			"clock set back": {"vm-a", coproc.RunID{1}, func() {
				_, _ = r.boot("vm-a", coproc.RunID{1})
				back.Store(int64(time.Hour))
			}},
			"after a failure": {"vm-d", coproc.RunID{1}, func() {
				r.pcrs.fail(errTest)
				if _, err := r.boot("vm-d", coproc.RunID{1}); !errors.Is(err, errTest) {
					r.Errorf("of a TPM that fails: %v", err)
				}
				r.pcrs.fail(nil)
			}},
		} {
			tc.before()
			r.pass(0)
			var text []byte
			if n := r.cost(func() { text, err = r.boot(tc.slot, tc.run) }); n != 1 || err != nil || bytes.Equal(text, last) {
				r.Errorf("%s: %d quotes, %v, the same as before %v", name, n, err, bytes.Equal(text, last))
			}
			back.Store(0)
			r.pass(time.Minute)
			if last, err = r.boot("vm-a", coproc.RunID{1}); err != nil {
				r.Fatal(err)
			}
			r.pass(r.m.cfg.PCRAge / 2)
		}
	})
}

// TestBootShare: a machine that is started without end gets its share of quotes, and is
// told when it has had it; others, its other share, and its guest get theirs.
func TestBootShare(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		a := r.newMachine("vm-a", 0x10)
		r.pass(r.cfg.poll())
		r.share(func(n int) error {
			_, err := r.boot("vm-a", coproc.RunID{1, byte(n)})
			return err
		})
		if _, err := r.boot("vm-b", coproc.RunID{1}); err != nil {
			r.Errorf("another machine: %v", err)
		}
		if _, err := r.ask("vm-a", request(r, nonce, a.layer(r, nonce))); err != nil {
			r.Errorf("the machine's guest: %v", err)
		}
		r.pass(r.m.cfg.Every)
		if _, err := r.boot("vm-a", coproc.RunID{2}); err != nil {
			r.Errorf("later: %v", err)
		}
	})
}

// TestManyBoots: names without end do not fill the queue before the host's TPM, and who
// asks and goes gives its place back.
func TestManyBoots(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		r.pcrs.slow = time.Hour
		gone, cancel := context.WithCancel(r.Context())
		ends := make(chan error)
		for i := range 3 * mostBoots {
			go func() {
				_, err := r.m.BootEvidence(gone, door.Caller{}, &door.BootEvidenceRequest{Slot: fmt.Sprintf("vm-%d", i), Run: make([]byte, 32)})
				ends <- err
			}()
		}
		for range 2 * mostBoots {
			if err := <-ends; !errors.Is(err, ErrBusy) {
				r.Errorf("one too many: %v, want ErrBusy", err)
			}
		}
		cancel()
		for range mostBoots {
			if err := <-ends; !errors.Is(err, context.Canceled) {
				r.Errorf("one that goes: %v", err)
			}
		}
		r.pcrs.slow = 0
		if _, err := r.boot("vm-a", coproc.RunID{1}); err != nil {
			r.Error(err)
		}
		if n := len(r.m.boots.last); n != 1 {
			r.Errorf("evidence of %d machines is kept, want that of one", n)
		}
	})
}
