// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"fmt"
	"testing"
	"time"

	goattest "github.com/google/go-attestation/attest"
	"golang.org/x/sys/unix"
)

// fleet is evidence as text of machines of one host: each machine's answers to
// several nonces.
type fleet struct {
	v       *Verifier
	nonces  [][]byte
	answers [][][]byte // by machine and nonce
}

func newFleet(t testing.TB, machines, answers int) *fleet {
	s := newSite(t, newAuthority(t), "host-1")
	f := &fleet{v: s.verifier()}
	f.v.Lists, f.v.Policy = s.lists(), &Policy{Version: Version, Revocation: true, Host: LayerPolicy{Log: true, SecureBoot: true}}
	for n := range answers {
		f.nonces = append(f.nonces, fmt.Appendf(nil, "nonce %026d", n))
	}
	for i := range machines {
		m := s.newMachine(fmt.Sprintf("vm-%d", i))
		var texts [][]byte
		for _, nonce := range f.nonces {
			texts = append(texts, ok[[]byte](t)(m.answer(nonce).Marshal()))
		}
		f.answers = append(f.answers, texts)
	}
	return f
}

// check reads and judges the answer of a machine to a nonce.
func (f *fleet) check(t testing.TB, c *Cache, machine, answer int) {
	t.Helper()
	v := *f.v
	v.Cache = c
	ev, err := Parse(f.answers[machine][answer])
	if err != nil {
		t.Fatal(err)
	}
	if r, err := v.Verify(ev, f.nonces[answer]); err != nil || !r.OK {
		t.Fatalf("the evidence does not hold: %+v, %v", r, err)
	}
}

// meter measures what a benchmark takes of the processor, beside the time that it takes
// on a machine that has other things to do.
type meter struct {
	b     *testing.B
	since time.Duration
	used  time.Duration
}

func (m *meter) now() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		m.b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (m *meter) start() { m.since = m.now() }
func (m *meter) stop()  { m.used += m.now() - m.since }

// report says so, in microseconds.
func (m *meter) report() {
	m.b.ReportMetric(float64(m.used.Nanoseconds())/1000/float64(m.b.N), "cpu-us/op")
}

// BenchmarkDeep is the whole of it, from text to verdict, with revocation lists, a log
// of 33 KiB and a policy: with nothing known before, of machines that are new on a
// host that is known, and of machines that answered before.
func BenchmarkDeep(b *testing.B) {
	const machines, answers = 8, 8
	f := newFleet(b, machines, answers)
	b.Run("cold", func(b *testing.B) {
		cpu := &meter{b: b}
		cpu.start()
		for i := 0; b.Loop(); i++ {
			f.check(b, nil, i%machines, i%answers)
		}
		cpu.stop()
		cpu.report()
	})
	b.Run("known-host", func(b *testing.B) {
		cpu, i, c := &meter{b: b}, 0, NewCache()
		for b.Loop() {
			if i%machines == 0 { // one machine makes the host known; the others are new
				b.StopTimer()
				c, i = NewCache(), i+1
				f.check(b, c, 0, 0)
				b.StartTimer()
			}
			cpu.start()
			f.check(b, c, i%machines, i%answers)
			cpu.stop()
			i++
		}
		cpu.report()
	})
	b.Run("known-machine", func(b *testing.B) {
		cpu, c := &meter{b: b}, NewCache()
		for i := range machines {
			f.check(b, c, i, 0)
		}
		cpu.start()
		for i := 0; b.Loop(); i++ {
			f.check(b, c, i%machines, 1+i%(answers-1))
		}
		cpu.stop()
		cpu.report()
	})
}

// BenchmarkSingle is what go-attestation does for one layer, in the same process: a
// quote of one bank with its values, and the log. Ours does the same with the pieces
// of the verifier.
func BenchmarkSingle(b *testing.B) {
	m := newSite(b, newAuthority(b), "host-1")
	l := m.hostAIK.layer(nonce, selectionOnly("sha256"))
	l.Log = bootLogBytes
	ak, pcrs := &goattest.AKPublic{Public: m.hostAIK.pub, Hash: crypto.SHA256}, bankPCRs(l.PCRs, "sha256")
	q := goattest.Quote{Quote: l.Quote.Attest, Signature: l.Quote.Signature}
	theirs := func(b *testing.B, log bool) {
		cpu := &meter{b: b}
		defer cpu.report()
		cpu.start()
		defer cpu.stop()
		for b.Loop() {
			if err := ak.Verify(q, pcrs, nonce); err != nil {
				b.Fatal(err)
			}
			if !log {
				continue
			}
			el, err := goattest.ParseEventLog(l.Log)
			if err == nil {
				_, err = el.Verify(pcrs)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	ours := func(b *testing.B, log bool) {
		cpu := &meter{b: b}
		defer cpu.report()
		cpu.start()
		defer cpu.stop()
		for b.Loop() {
			opened, err := openQuote(m.hostAIK.pub, &l.Quote)
			if err == nil {
				err = opened.checkPCRs(l.PCRs, []int{0, 1, 2, 3, 4, 5, 6, 7})
			}
			if err == nil && log {
				_, err = replay(l.Log, l.PCRs)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("quote/go-attestation", func(b *testing.B) { theirs(b, false) })
	b.Run("quote/ours", func(b *testing.B) { ours(b, false) })
	b.Run("quote-and-log/go-attestation", func(b *testing.B) { theirs(b, true) })
	b.Run("quote-and-log/ours", func(b *testing.B) { ours(b, true) })
}
