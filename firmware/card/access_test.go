// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"testing"

	"hwvtpm/coproc/abi"
)

func TestOpenNeedsTheSlotsKey(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	r.create("b")
	for _, p := range []Principal{{Name: "vm"}, {Admin: true, Name: "root"}} {
		s := r.NewSession(p)
		_, err := prove(s, "a", keyOf("b"))
		wantStatus(t, err, abi.StatusDenied)
		g, err := prove(s, "b", keyOf("b"))
		must(t, err)
		g.Close()
		r.await("b", abi.LifeClosed)
	}
	if n := r.Stats().Counters.Denied; n != 2 {
		t.Errorf("%d denials counted, want 2", n)
	}
}

// answer signs a challenge and gives the proof.
func answer(t *testing.T, s *Session, name string) (abi.Challenge, []byte) {
	t.Helper()
	b, _, err := do(s, abi.OpSlotChallenge, 0, []byte(name))
	must(t, err)
	ch, err := abi.ParseChallenge(b)
	must(t, err)
	sig := ed25519.Sign(keyOf(name), abi.OpenMessage(ch.Serial, ch.ID, ch.Nonce))
	return ch, abi.AppendProof(nil, abi.Proof(sig))
}

func TestChallengeIsGoodOnceAndHere(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	r.create("b")
	s, other := r.NewSession(Principal{Name: "vm"}), r.NewSession(Principal{Name: "other"})

	ch, proof := answer(t, s, "a")
	_, _, err := do(other, abi.OpSlotOpen, ch.Number, proof)
	wantStatus(t, err, abi.StatusOrder) // of another session

	_, g, err := do(s, abi.OpSlotOpen, ch.Number, proof)
	must(t, err)
	g.Close()
	r.await("a", abi.LifeClosed)
	_, _, err = do(s, abi.OpSlotOpen, ch.Number, proof)
	wantStatus(t, err, abi.StatusOrder) // used

	ch, proof = answer(t, s, "a")
	_, _, err = do(s, abi.OpSlotOpen, r.show("b").Number, proof)
	wantStatus(t, err, abi.StatusOrder) // for another slot
	_, _, err = do(s, abi.OpSlotOpen, ch.Number, proof)
	wantStatus(t, err, abi.StatusOrder) // which used it up

	ch, proof = answer(t, s, "a")
	answer(t, s, "a")
	_, _, err = do(s, abi.OpSlotOpen, ch.Number, proof)
	wantStatus(t, err, abi.StatusDenied) // replaced by the next

	ch, proof = answer(t, s, "a")
	proof[10] ^= 1
	_, _, err = do(s, abi.OpSlotOpen, ch.Number, proof)
	wantStatus(t, err, abi.StatusDenied)
	if len(r.Stats().Slots) != 2 || r.show("a").Life != abi.LifeClosed {
		t.Errorf("slot a is %s", r.show("a").Life)
	}
}

// A slot that was made anew under the same number is another slot.
func TestChallengeOfADestroyedSlot(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	s := r.NewSession(Principal{Name: "vm"})
	ch, proof := answer(t, s, "a")
	_, err := r.destroy("a")
	must(t, err)
	if again := r.create("a"); again.Number != ch.Number {
		t.Fatalf("number %d, want %d again", again.Number, ch.Number)
	}
	_, _, err = do(s, abi.OpSlotOpen, ch.Number, proof)
	wantStatus(t, err, abi.StatusNoSlot)
}

func TestNamesAreNoOracle(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	s := r.NewSession(Principal{Name: "vm"})
	for _, op := range []abi.Opcode{abi.OpSlotChallenge, abi.OpSlotShow} {
		for _, name := range []string{"nobody", "", "../../etc/passwd", "a\x00"} {
			_, _, err := do(s, op, 0, []byte(name))
			wantStatus(t, err, abi.StatusNoSlot)
		}
	}
}

func TestAdminsOnly(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	info := r.create("a")
	s := r.NewSession(Principal{Name: "vm"})
	for code, o := range ops {
		if !o.admin {
			continue
		}
		_, _, err := do(s, code, info.Number, make([]byte, max(o.size, 0)))
		wantStatus(t, err, abi.StatusDenied)
	}
	for _, code := range []abi.Opcode{abi.OpCardIdentify, abi.OpCardHealth, abi.OpCardCounters, abi.OpCardKey} {
		if _, _, err := do(s, code, 0, nil); err != nil {
			t.Errorf("opcode %#x: %v", code, err)
		}
	}
	b, _, err := do(s, abi.OpSlotShow, 0, []byte("a"))
	must(t, err)
	if got, err := abi.ParseSlotInfo(b); err != nil || got != info {
		t.Errorf("%+v, %v, want %+v", got, err, info)
	}
}

func TestMalformedSubmissions(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	info := r.create("a")
	for code, o := range ops {
		if code == abi.OpSlotShow || code == abi.OpSlotChallenge || code == abi.OpSlotAdopt || code == abi.OpSlotRestore {
			continue // any bytes are a name that nobody has, or a reason
		}
		for _, size := range []int{0, 1, 3, 63, 65, 129, 4096} {
			if size == o.size {
				continue
			}
			_, _, err := do(r.admin, code, info.Number, make([]byte, size))
			wantStatus(t, err, abi.StatusBadField)
		}
	}
	for _, code := range []abi.Opcode{abi.OpSlotAdopt, abi.OpSlotRestore} {
		_, _, err := do(r.admin, code, info.Number, nil)
		wantStatus(t, err, abi.StatusBadField)
	}
	for _, code := range []abi.Opcode{0, abi.OpExecute, abi.OpQueueCreate, 0x4f, 0xff} {
		_, _, err := do(r.admin, code, 0, nil)
		wantStatus(t, err, abi.StatusBadOpcode)
	}
	_, _, err := do(r.admin, abi.OpSlotPark, 77, nil)
	wantStatus(t, err, abi.StatusNoSlot)
}

func TestOneClientAtATime(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	first := r.open("a")
	_, err := r.tryOpen("a")
	wantStatus(t, err, abi.StatusInUse)
	must(t, r.on(abi.OpSlotPark, "a", nil))
	_, err = r.tryOpen("a")
	wantStatus(t, err, abi.StatusInUse) // parked is not free
	first.want(t, "add", "1")
	first.close()
	r.open("a").want(t, "add", "2") // no wait is needed after a client has hung up
	for _, op := range []abi.Opcode{abi.OpSlotLock, abi.OpSlotUnlock} {
		wantStatus(t, r.on(op, "a", nil), abi.StatusInUse)
	}
	wantStatus(t, r.on(abi.OpSlotAdopt, "a", []byte("x")), abi.StatusInUse)
	_, err = r.destroy("a")
	wantStatus(t, err, abi.StatusInUse)
}

// The worker of a client that went away is busy and deaf: the next client gets the
// slot nevertheless.
func TestClientComesBackWhileTheWorkerStalls(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	first := r.open("a")
	first.want(t, "add", "1")
	_, err := first.grant.Data.Write(abi.AppendSubmission(nil, &abi.Submission{Op: abi.OpExecute, Seq: 9, Payload: []byte("stall")}))
	must(t, err)
	first.close()
	r.open("a").want(t, "add", "2")
}

func TestLock(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	r.create("a")
	must(t, r.on(abi.OpSlotLock, "a", nil))
	_, err := r.tryOpen("a")
	wantStatus(t, err, abi.StatusLocked)
	must(t, r.Close())
	r = openCard(t, cfg)
	if life := r.show("a").Life; life != abi.LifeLocked {
		t.Errorf("after a restart the slot is %s", life)
	}
	_, err = r.tryOpen("a")
	wantStatus(t, err, abi.StatusLocked)
	must(t, r.on(abi.OpSlotUnlock, "a", nil))
	r.open("a").want(t, "add", "1")
}

func TestCreateRefuses(t *testing.T) {
	cfg := fakeConfig(t)
	cfg.MaxSlots = 2
	r := openCard(t, cfg)
	r.create("a")
	_, err := r.tryCreate("a")
	wantStatus(t, err, abi.StatusExists)
	for _, op := range []abi.Opcode{abi.OpSlotCreate, abi.OpSlotClone} { // who has a's key has a, and nothing else
		req := request("a")
		req.Name = "b"
		if op == abi.OpSlotClone {
			req.Flags = abi.CreateNewIdentity
		}
		_, _, err = do(r.admin, op, r.show("a").Number, abi.AppendSlotCreate(nil, req))
		wantStatus(t, err, abi.StatusExists)
	}
	r.create("b")
	_, err = r.tryCreate("c")
	wantStatus(t, err, abi.StatusFull)
	req := request("d")
	req.Flags = abi.CreateNewIdentity
	_, _, err = do(r.admin, abi.OpSlotCreate, 0, abi.AppendSlotCreate(nil, req))
	wantStatus(t, err, abi.StatusBadField)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = r.destroy("b")
	must(t, err)
	reply := r.admin.Do(ctx, &abi.Submission{Op: abi.OpSlotCreate, Payload: abi.AppendSlotCreate(nil, request("e"))}, nil)
	if reply.Status == abi.StatusOK || len(r.Stats().Slots) != 1 {
		t.Errorf("created after the caller went: %s, %d slots", reply.Status, len(r.Stats().Slots))
	}
}

func TestDestroyNamesTheSlotById(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	info := r.create("a")
	_, _, err := do(r.admin, abi.OpSlotDestroy, info.Number, abi.AppendSlotRef(nil, &abi.SlotRef{ID: [16]byte{1}}))
	wantStatus(t, err, abi.StatusNoSlot)
	r.open("a").want(t, "add", "1")
}

func TestListInPages(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	const n = 2*abi.MaxListed + 3
	for i := range n {
		r.create(fmt.Sprint("s", i))
	}
	var got []abi.SlotInfo
	for from := uint32(0); ; {
		b, _, err := do(r.admin, abi.OpSlotList, 0, abi.AppendListRequest(nil, abi.ListRequest{From: from}))
		must(t, err)
		page, err := abi.ParseSlotList(b, from)
		must(t, err)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		from = page[len(page)-1].Number + 1
	}
	if len(got) != n {
		t.Errorf("%d slots listed, want %d", len(got), n)
	}
}
