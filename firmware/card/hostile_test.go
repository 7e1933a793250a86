// SPDX-License-Identifier: Apache-2.0

package card

import (
	"io"
	"strings"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
)

// A worker that breaks the protocol is ended. It costs its slot the connection,
// nothing that was acknowledged, and other slots nothing.
func TestHostileWorkerCostsItsSlotOnly(t *testing.T) {
	for _, how := range []string{
		"crash", "save-foreign", "save-old", "save-future", "save-garbage", "save-huge", "certify", "ready", "garbage", "descriptor", "flood",
	} {
		t.Run(how, func(t *testing.T) {
			r := openCard(t, fakeConfig(t))
			r.create("bad")
			r.create("good")
			bad, good := r.open("bad"), r.open("good")
			bad.want(t, "add", "1")
			good.want(t, "add", "1")
			if out, err := bad.run(how); err != io.EOF {
				t.Errorf("%s gives %q, %v; want the end of the slot", how, out, err)
			}
			good.want(t, "add", "2")
			if got := r.show("bad").Restarts; got != 1 {
				t.Errorf("%d restarts counted, want 1", got)
			}
			again := r.open("bad")
			again.want(t, "add", "2")
			again.close()
		})
	}
}

// Stalled workers hold up neither the card nor other slots.
func TestStalledWorkers(t *testing.T) {
	cfg := fakeConfig(t)
	cfg.MaxLive = 3
	cfg.ParkAfter = 20 * time.Millisecond
	r := openCard(t, cfg)
	for _, name := range []string{"s1", "s2", "a", "b"} {
		r.create(name)
	}
	for _, name := range []string{"s1", "s2"} {
		c := r.open(name)
		_, err := c.grant.Data.Write(abi.AppendSubmission(nil, &abi.Submission{Op: abi.OpExecute, Seq: 1, Payload: []byte("stall")}))
		must(t, err)
	}
	a, b := r.open("a"), r.open("b")
	for i := range 5 { // take turns on the one worker that is left
		a.want(t, "add", string(rune('1'+i)))
		b.want(t, "add", string(rune('1'+i)))
	}
	wantStatus(t, r.on(abi.OpSlotPark, "s1", nil), abi.StatusInUse)
}

// A worker has what it was given, and nothing of the card's.
func TestWorkerHasNothingOfTheCards(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	c := r.open("a")
	out, err := c.run("fds")
	must(t, err)
	sockets := 0
	for link := range strings.FieldsSeq(out) {
		if strings.HasPrefix(link, "socket:") {
			sockets++
		}
		if strings.HasPrefix(link, r.cfg.Dir) && !strings.HasSuffix(link, "/volatile") {
			t.Errorf("worker has %s", link)
		}
	}
	if sockets != 3 { // supervisor channel, data, control
		t.Errorf("worker has %d sockets, want 3: %s", sockets, out)
	}
	c.want(t, "env", "[]")
}

func TestEngineThatDoesNotStart(t *testing.T) {
	cfg := fakeConfig(t)
	cfg.Engine = "/bin/false"
	r := openCard(t, cfg)
	if _, err := r.tryCreate("a"); err == nil {
		t.Error("created without a worker")
	}
	if n := len(r.Stats().Slots); n != 0 {
		t.Errorf("%d slots", n)
	}
}
