// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/wire"
)

// TestParkIdle: a client does not notice that its worker was parked.
func TestParkIdle(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	key := k.tpm.CreateSRK()
	var want tpmtest.Digest
	for range 3 {
		k.tpm.Extend(10, "x")
		want = tpmtest.Extended(want, "x")
		l.park()
		l = c.open(k, resumed)
		if got := k.tpm.PCR(10); got != want || !k.tpm.Loaded(key) {
			t.Fatalf("PCR 10 = %x, want %x", got, want)
		}
	}
	l.end()
}

// TestParkBeforeIdentify: a client that has said nothing yet can be parked too.
func TestParkBeforeIdentify(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k := newClient(t)
	c.open(k, nil).park()
	l := c.open(k, nil)
	k.greet(1)
	l.park()
	l = c.open(k, resumed)
	k.tpm.Startup()
	l.end()
}

// TestParkFailed: a slot that has failed stays so over parking, also when what it
// failed of is no more, until its reset.
func TestParkFailed(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	k.tpm.Extend(10, "before")
	l.park()
	l = c.open(k, func(s *wire.Setup) { resumed(s); s.MinSeq = 1000 })
	for range 2 {
		k.seq = 1000
		if done := k.execute(bytes.Clone(cmdExtend)); done.Status != abi.StatusFailed || l.page.State() != abi.SlotFailed {
			t.Errorf("execute: %v, slot is %v, want failed", done.Status, l.page.State())
		}
		l.park()
		l = c.open(k, func(s *wire.Setup) { s.Flags |= wire.Greeted | wire.Failed })
	}
	id := [abi.RunIDSize]byte{1}
	if done := k.ask(&abi.Submission{Op: abi.OpPowerOn, Payload: id[:]}); done.Status != abi.StatusFailed {
		t.Errorf("power-on: %v, want failed", done.Status)
	}
	if done := k.ask(&abi.Submission{Op: abi.OpReset}); done.Status != abi.StatusOK {
		t.Fatalf("reset: %v", done.Status)
	}
	k.tpm.Startup()
	if got := k.tpm.PCR(10); got != (tpmtest.Digest{}) {
		t.Errorf("PCR 10 after a reset = %x", got)
	}
	l.end()
}

// TestParkWithQueued: the order to park comes before a submission that was not
// read, which is the next worker's, and is executed once.
func TestParkWithQueued(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	l.park()
	for range 10 {
		k.seq++
		k.send(&abi.Submission{Op: abi.OpExecute, Seq: k.seq, Payload: bytes.Clone(cmdExtend)})
		l, theirs := c.newLife()
		s := c.setup()
		resumed(&s)
		l.give(s, c.durable(), k.far[0], k.far[1])
		if err := wire.Send(l.channel, wire.AppendPark(nil)); err != nil {
			t.Fatal(err)
		}
		l.run(theirs) // finds all of it
		<-l.exited
		if l.err != nil || l.page.Commands() != 0 {
			t.Fatalf("parked worker ended with %v after %d commands", l.err, l.page.Commands())
		}
		l.end()
		l = c.open(k, resumed)
		if done, ok := k.receive(); !ok || done.Seq != k.seq || responseCode(done.Payload) != rcSuccess || done.Flags != 0 {
			t.Fatalf("queued command: %+v, %t", done, ok)
		}
		l.park()
	}
	l = c.open(k, resumed)
	want := zerosTimes(10)
	if got := k.tpm.PCR(10); got != want {
		t.Errorf("PCR 10 = %x, want it extended ten times: %x", got, want)
	}
	l.end()
}

// zerosTimes is a PCR that was extended so often with what cmdExtend does.
func zerosTimes(n uint64) (pcr tpmtest.Digest) {
	for range n {
		pcr = sha256.Sum256(append(pcr[:], make([]byte, 32)...))
	}
	return pcr
}

// TestParkBusy: a client that never lets the worker wait does not keep it from exiting,
// and loses nothing.
func TestParkBusy(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	const most = 20000 // more than any worker serves between two looks at its card
	first, sent := k.seq, k.seq
	r := &relay{c: c, k: k, life: l}
	for {
		for ; sent < k.seq+64; sent++ {
			k.send(&abi.Submission{Op: abi.OpExecute, Seq: sent + 1, Payload: bytes.Clone(cmdExtend)})
		}
		if !r.readable() {
			break
		}
		if done, ok := k.receive(); !ok || done.Seq != k.seq+1 || responseCode(done.Payload) != rcSuccess {
			t.Fatalf("after %d: %+v, %t", k.seq, done, ok)
		}
		if k.seq++; k.seq == first+100 {
			wire.Send(l.channel, wire.AppendPark(nil))
		}
		if k.seq-first > most {
			t.Fatalf("the worker serves on, after %d commands", k.seq-first)
		}
	}
	l.end()
	l = c.open(k, resumed)
	for ; k.seq < sent; k.seq++ {
		if done, ok := k.receive(); !ok || done.Seq != k.seq+1 || done.Flags != 0 {
			t.Fatalf("queued command after %d: %+v, %t", k.seq, done, ok)
		}
	}
	want := zerosTimes(sent - first)
	if got := k.tpm.PCR(10); got != want {
		t.Errorf("PCR 10 = %x, want it extended %d times: %x", got, sent-first, want)
	}
	l.end()
}

// TestCancelOvertakesQueued: a slot that is brought back finds a command and its cancel
// waiting, and may read the cancel first. The command is canceled all the same, if
// it is one that can be.
func TestCancelOvertakesQueued(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	srk := k.tpm.CreateSRK()
	l.park()
	k.cancel(k.seq) // too late: it does nothing
	var want tpmtest.Digest
	for range 3 {
		k.cancel(k.seq + 1)
		l = c.open(k, resumed)
		k.ping()
		if _, err := tpmtest.RSAKeyCommand(srk, 3072).Execute(k.tpm); !errors.Is(err, tpm2.TPMRCCanceled) {
			t.Errorf("canceled command: %v, want TPM_RC_CANCELED", err)
		}
		k.cancel(k.seq + 1)
		k.ping()
		k.tpm.Extend(10, "x") // nothing to cancel
		want = tpmtest.Extended(want, "x")
		l.park()
	}
	l = c.open(k, resumed)
	if got := k.tpm.PCR(10); got != want {
		t.Errorf("PCR 10 = %x, want %x", got, want)
	}
	l.end()
}

// TestCancelOfRecorded: a command that was done is answered as it was, though a cancel
// comes before it is sent again.
func TestCancelOfRecorded(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	cmd := command(0x131, 1, authPW, 0, 4, 0, 0, 0, 0) // refused, and that is on record
	first := bytes.Clone(k.execute(bytes.Clone(cmd)).Payload)
	l.park()
	k.cancel(k.seq)
	l = c.open(k, func(s *wire.Setup) { resumed(s); s.MinSeq = 0 }) // as after the card's death
	k.ping()
	done := k.ask(&abi.Submission{Op: abi.OpExecute, Seq: k.seq, Payload: bytes.Clone(cmd)})
	if done.Flags != abi.FlagReplayed || !bytes.Equal(done.Payload, first) {
		t.Errorf("command that was done: %x, flags %#x", done.Payload, done.Flags)
	}
	l.end()
}

// TestParkWhileSaving: an order to park in the middle of a command waits for the
// command's end.
func TestParkWhileSaving(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	c.onSave(func(l *life, blob []byte) abi.Status {
		wire.Send(l.channel, wire.AppendPark(nil))
		return abi.StatusOK
	})
	if done := k.execute(bytes.Clone(cmdDefine)); responseCode(done.Payload) != rcSuccess {
		t.Errorf("NV_DefineSpace: %x", done.Payload)
	}
	<-l.exited
	if l.err != nil {
		t.Errorf("parked worker ended with %v", l.err)
	}
	l.end()
	c.onSave(nil)
	l = c.open(k, resumed)
	k.tpm.Extend(10, "x")
	l.end()
}
