// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/tpmcmd"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// resumed is the Setup of a worker that goes on for a client who is to notice
// nothing.
func resumed(s *wire.Setup) { s.Flags |= wire.Greeted | wire.Powered }

// TestConformanceInProcess runs the suite of all cards on this firmware, in this
// process, without a program or a card around it.
func TestConformanceInProcess(t *testing.T) {
	coproctest.RunOverSockets(t, func(t *testing.T) coproctest.Starter {
		c := newFakeCard(t)
		c.create()
		return func() (int, int, func(), error) {
			k := newClient(t)
			l := c.open(k, nil)
			for _, fd := range k.far { // the worker has its own
				unix.Close(fd)
			}
			data, control := k.data, k.control
			k.data = -1
			return data, control, func() { <-l.exited; l.end() }, nil
		}
	})
}

func TestCreateAndOpen(t *testing.T) {
	c := newFakeCard(t)
	s := c.setup()
	s.Flags, s.BlobLen, s.Keys, s.Banks = wire.Create, 0, abi.KeyP256EK|abi.KeyP384EK, abi.BankSHA256
	r := c.make(s, nil)
	if r.Status != abi.StatusOK || r.Generation != 1 || r.Epoch != 1 || len(r.EKs) != 2 || c.count() != 1 {
		t.Fatalf("create: %+v in %d saves", r, c.count())
	}
	if bytes.Contains(c.durable(), []byte(stateMagic)) {
		t.Error("the state is not sealed")
	}
	k := newClient(t)
	l := c.open(k, nil)
	if r := k.greet(1); r.Resumed {
		t.Errorf("power-on of a new TPM: %+v", r)
	}
	k.tpm.Startup()
	generation, durable := l.page.Generation(), l.page.Durable()
	k.tpm.DefineNV(tpmtest.NVBase, 4)
	k.tpm.WriteNV(tpmtest.NVBase, []byte("keep"))
	if got := l.page.Durable(); got != durable+2 || l.page.Generation() != generation+2 || l.page.Epoch() != 1 {
		t.Errorf("%d durable writes, state %d.%d, before %d and 1.%d", got, l.page.Epoch(), l.page.Generation(), durable, generation)
	}
	if l.page.State() != abi.SlotRunning || l.page.Seq() != k.seq || l.page.LastActive() == 0 {
		t.Errorf("page: state %v, seq %d, want running and %d", l.page.State(), l.page.Seq(), k.seq)
	}
	if h := l.page.ReadHistogram(tpmcmd.ClassNV); h.Sum == 0 || l.page.ReadResults()[tpmcmd.ResultSuccess] != l.page.Commands() {
		t.Errorf("histogram %+v, results %v for %d commands", h, l.page.ReadResults(), l.page.Commands())
	}
	l.end()
	if l.err != nil {
		t.Errorf("the end of the card ended the worker with %v", l.err)
	}
	c.epoch++
	k = newClient(t)
	l = c.open(k, nil)
	if r := k.greet(1); !r.Resumed {
		t.Errorf("power-on after another life: %+v", r)
	}
	if got := k.tpm.ReadNV(tpmtest.NVBase, 4); string(got) != "keep" {
		t.Errorf("NV = %q", got)
	}
	k.tpm.WriteNV(tpmtest.NVBase, []byte("more"))
	if l.page.Epoch() != 2 {
		t.Errorf("saved in epoch %d, want 2", l.page.Epoch())
	}
	k.close()
	<-l.exited
	if l.err != nil {
		t.Errorf("the end of the client ended the worker with %v", l.err)
	}
}

func TestClone(t *testing.T) {
	c := newFakeCard(t)
	s := c.setup()
	s.Flags, s.BlobLen, s.Keys, s.Banks = wire.Create, 0, abi.KeyP256EK, abi.BankSHA256
	old := c.make(s, nil)
	k, l := c.boot(1)
	k.tpm.DefineNV(tpmtest.NVBase, 4)
	k.tpm.WriteNV(tpmtest.NVBase, []byte("keep"))
	l.end()

	source := c.durable()
	n := newFakeCard(t)
	n.store, n.id = c.store, sealed.SlotID{2}
	clone := n.setup()
	clone.Flags, clone.Keys = wire.Clone, abi.KeyP256EK
	clone.BlobLen, clone.Source, clone.SourceKey = uint32(len(source)), c.id, c.key(c.id)

	wrong := clone
	wrong.SourceKey = c.key(n.id)
	if r := n.make(wrong, source); r.Status != abi.StatusWrongKey {
		t.Errorf("clone with another key: %+v", r)
	}
	wrong = clone
	wrong.Source = n.id
	if r := n.make(wrong, source); r.Status != abi.StatusForeign {
		t.Errorf("clone of another slot: %+v", r)
	}
	if n.count() != 0 {
		t.Fatalf("%d saves for clones that failed", n.count())
	}
	r := n.make(clone, source)
	if r.Status != abi.StatusOK || r.Generation != 1 || len(r.EKs) != 1 || bytes.Equal(r.EKs[0].Name, old.EKs[0].Name) {
		t.Fatalf("clone: %+v, the source had %+v", r, old)
	}
	k, l = n.boot(1)
	if got := k.tpm.ReadNV(tpmtest.NVBase, 4); string(got) != "keep" {
		t.Errorf("NV of the clone = %q", got)
	}
	l.end()
}

// TestCreateThatCannotBeSaved: a TPM that was not saved is none.
func TestCreateThatCannotBeSaved(t *testing.T) {
	c := newFakeCard(t)
	c.onSave(func(*life, []byte) abi.Status { return abi.StatusStorage })
	s := c.setup()
	s.Flags, s.BlobLen, s.Banks = wire.Create, 0, abi.DefaultBanks
	if r := c.make(s, nil); r.Status != abi.StatusStorage || len(r.EKs) != 0 {
		t.Errorf("create: %+v, want StatusStorage", r)
	}
}

// TestStorageFails: a command whose state the card cannot write is undone, and
// the next one that can be written uses another generation.
func TestStorageFails(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	k.tpm.Extend(10, "kept")
	pcr, random := k.tpm.PCR(10), k.tpm.Random(16)
	c.onSave(func(*life, []byte) abi.Status { return abi.StatusStorage })
	for range 2 {
		if done := k.execute(bytes.Clone(cmdDefine)); responseCode(done.Payload) != rcNVUnavailable {
			t.Fatalf("NV_DefineSpace: %v %x, want TPM_RC_NV_UNAVAILABLE", done.Status, done.Payload)
		}
	}
	if k.tpm.PCR(10) != pcr || bytes.Equal(k.tpm.Random(16), random) {
		t.Error("the undo lost a PCR, or repeats random numbers")
	}
	c.onSave(nil)
	if done := k.execute(bytes.Clone(cmdDefine)); responseCode(done.Payload) != rcSuccess {
		t.Errorf("NV_DefineSpace when there is room: %x", done.Payload)
	}
	l.end()
}

// TestUnsureSave: when nobody knows whether a state is durable the worker ends
// without an answer, and the next one finds out, whichever it is.
func TestUnsureSave(t *testing.T) {
	for _, written := range []bool{false, true} {
		c := newFakeCard(t)
		c.create()
		k, l := c.boot(1)
		k.tpm.Extend(10, "kept")
		c.onSave(func(l *life, blob []byte) abi.Status {
			if written {
				c.replace(blob)
			}
			return abi.StatusInternal
		})
		k.seq++
		define := &abi.Submission{Op: abi.OpExecute, Seq: k.seq, Payload: bytes.Clone(cmdDefine)}
		k.send(define)
		<-l.exited
		if l.err == nil {
			t.Error("worker ended in order")
		}
		l.end()
		c.onSave(nil)
		l = c.open(k, resumed)
		k.send(define)
		done, ok := k.receive()
		if !ok || responseCode(done.Payload) != rcSuccess || (done.Flags == abi.FlagReplayed) != written {
			t.Errorf("written %t: the same command again: %+v, %t", written, done, ok)
		}
		if got, want := k.tpm.PCR(10), tpmtest.Extended(tpmtest.Digest{}, "kept"); got != want {
			t.Errorf("PCR 10 = %x, want %x", got, want)
		}
		l.end()
	}
}

// TestSetBack: what is older than the card knows is refused, with an explanation.
func TestSetBack(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	for _, min := range [][2]uint64{{1, 2}, {2, 0}} {
		r := c.refused(func(s *wire.Setup) { s.MinEpoch, s.MinGeneration = min[0], min[1] })
		if r.Status != abi.StatusRollback || !strings.Contains(r.Text, "older than") {
			t.Errorf("state 1.1 where %v is known: %+v", min, r)
		}
	}
	if r := c.refused(func(s *wire.Setup) { s.Key[0] ^= 1 }); r.Status != abi.StatusWrongKey {
		t.Errorf("another key: %+v", r)
	}
	if r := c.refused(func(s *wire.Setup) { s.Slot[3] ^= 1 }); r.Status != abi.StatusForeign {
		t.Errorf("another slot: %+v", r)
	}
	c.blob[len(c.blob)/2] ^= 1
	if r := c.refused(func(*wire.Setup) {}); r.Status != abi.StatusCorrupt {
		t.Errorf("damaged state: %+v", r)
	}
}

// TestVolatileSetBack: a volatile file that lacks what was answered fails the run,
// also for a client that does not power on again. A reset brings the slot back,
// with numbers that go on.
func TestVolatileSetBack(t *testing.T) {
	for _, again := range []bool{false, true} {
		c := newFakeCard(t)
		c.create()
		k, l := c.boot(1)
		k.tpm.Extend(10, "one")
		l.park()
		old, err := os.ReadFile(c.volume)
		if err != nil {
			t.Fatal(err)
		}
		l = c.open(k, resumed)
		k.tpm.Extend(10, "two")
		last := l.page.Seq()
		l.park()
		if err := os.WriteFile(c.volume, old, 0o600); err != nil {
			t.Fatal(err)
		}
		if again {
			k = newClient(t)
		}
		l = c.open(k, func(s *wire.Setup) {
			s.MinSeq = last
			if !again {
				resumed(s)
			}
		})
		if again {
			id := [abi.RunIDSize]byte{1}
			k.ask(&abi.Submission{Op: abi.OpIdentify, Payload: hello})
			if done := k.ask(&abi.Submission{Op: abi.OpPowerOn, Payload: id[:]}); done.Status != abi.StatusFailed {
				t.Errorf("power-on: %v, want failed", done.Status)
			}
		}
		k.seq = last
		if done := k.execute(bytes.Clone(cmdStart)); done.Status != abi.StatusFailed {
			t.Errorf("execute: %v, want failed", done.Status)
		}
		if l.page.State() != abi.SlotFailed || l.page.Seq() != last {
			t.Errorf("page: %v, last number %d, want failed and %d", l.page.State(), l.page.Seq(), last)
		}
		if done := k.ask(&abi.Submission{Op: abi.OpReset}); done.Status != abi.StatusOK {
			t.Fatalf("reset: %v", done.Status)
		}
		k.tpm.Startup()
		if got := k.tpm.PCR(10); got != (tpmtest.Digest{}) || l.page.Seq() <= last {
			t.Errorf("PCR 10 after a reset = %x, last number %d after %d", got, l.page.Seq(), last)
		}
		l.end()
	}
}

// TestOtherBoot: the run ended with the machine's last boot, unless the card
// knows better, and then the file is not what it says.
func TestOtherBoot(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	_, l := c.boot(1)
	last := l.page.Seq()
	l.end()
	k := newClient(t)
	l = c.open(k, func(s *wire.Setup) { resumed(s); s.Boot[0]++; s.MinSeq = last })
	k.seq = last
	if done := k.execute(bytes.Clone(cmdStart)); done.Status != abi.StatusFailed {
		t.Errorf("execute: %v, want failed", done.Status)
	}
	l.end()
	k = newClient(t)
	l = c.open(k, func(s *wire.Setup) { s.Boot[0]++ })
	if r := k.greet(1); r.Resumed {
		t.Errorf("power-on after another boot: %+v", r)
	}
	l.end()
}

// TestCardGoneWhileSaving: without an answer of the card the client gets none.
func TestCardGoneWhileSaving(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	c.onSave(func(l *life, blob []byte) abi.Status {
		unix.Shutdown(l.channel, unix.SHUT_RDWR)
		return abi.StatusOK
	})
	k.seq++
	define := &abi.Submission{Op: abi.OpExecute, Seq: k.seq, Payload: bytes.Clone(cmdDefine)}
	k.send(define)
	<-l.exited
	if l.err != nil {
		t.Errorf("worker ended with %v", l.err)
	}
	l.end()
	c.onSave(nil)
	l = c.open(k, resumed)
	k.send(define)
	if done, ok := k.receive(); !ok || done.Flags != abi.FlagReplayed || responseCode(done.Payload) != rcSuccess {
		t.Errorf("the same command again: %+v, %t", done, ok)
	}
	l.end()
}

// TestClientGoneUnread: a client may go without reading what it asked for.
func TestClientGoneUnread(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k := newClient(t)
	l := c.open(k, nil)
	k.greet(1)
	before := l.page.Commands()
	k.send(&abi.Submission{Op: abi.OpExecute, Seq: k.seq + 1, Payload: bytes.Clone(cmdStart)})
	for l.page.Commands() == before || l.page.Busy() {
		time.Sleep(time.Millisecond)
	}
	k.close()
	<-l.exited
	if l.err != nil {
		t.Errorf("worker ended with %v", l.err)
	}
}

// TestProtocolErrors: a worker that is told nonsense ends.
func TestProtocolErrors(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	for name, msg := range map[string][]byte{
		"saved, unasked": wire.AppendSaved(nil, wire.Saved{}),
		"ready":          wire.AppendReady(nil, &wire.Ready{}),
		"garbage":        []byte("garbage"),
	} {
		k := newClient(t)
		l := c.open(k, nil)
		if err := wire.Send(l.channel, msg); err != nil {
			t.Fatal(err)
		}
		<-l.exited
		if l.err == nil {
			t.Errorf("%s: the worker ended in order", name)
		}
		l.end()
	}
	l := c.start() // a spare
	l.end()
	if l.err != nil {
		t.Errorf("a spare that was not needed ended with %v", l.err)
	}
}
