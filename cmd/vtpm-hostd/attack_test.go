// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"hwvtpm/coproc/coproctest/swtpmtest"
	"hwvtpm/guest/attester"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/door"
)

// TestOthersQuote: on a machine's channel nothing is had for another machine, not even
// with that one's own good quote, certificate or name.
func TestOthersQuote(t *testing.T) {
	s := newSite(t)
	s.startHost()
	s.healthy()
	s.create("vm-a", "vm-b")
	a, b := s.boot("vm-a"), s.boot("vm-b")
	a.enrol()
	b.enrol()
	ev, err := b.evidence(a.door)
	if door.Code(err) != door.CodeDenied || ev != nil {
		t.Errorf("evidence with the quote of vm-b on the channel of vm-a: %v", err)
	}
	_, err = b.Enrol(t.Context(), attester.AtDoor(a.door), attester.EnrolOptions{})
	if door.Code(err) != door.CodeDenied {
		t.Errorf("enrolment of vm-b on the channel of vm-a: %v", err)
	}
	// The key of a vTPM that is gone, under the name of a new one.
	old := a.quote(nonce)
	a.slot.Close()
	s.destroy("vm-a")
	until(t, "the end of the door of vm-a", func() bool {
		_, err := os.Stat(s.path("guests", "vm-a.sock"))
		return err != nil
	})
	s.create("vm-a")
	if _, err := attester.Complete(t.Context(), s.guest("vm-a"), old, nonce, ""); door.Code(err) != door.CodeDenied {
		t.Errorf("evidence with a quote of the vm-a before: %v", err)
	}
}

// TestFlood: garbage and endless requests from one machine cost others nothing but time.
func TestFlood(t *testing.T) {
	s := newSite(t)
	s.startHost()
	s.healthy()
	s.create("vm-a", "vm-b")
	a, b := s.boot("vm-a"), s.boot("vm-b")
	a.enrol()
	b.enrol()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.flood(i)
				}
			}
		})
	}
	req := request(t, a)
	busy := 0
	for range 20 {
		if err := a.door.Call(t.Context(), door.OpEvidence, req, nil); door.Code(err) == door.CodeBusy && err != nil {
			busy++
		}
	}
	if busy == 0 {
		t.Error("a machine has as many quotes of the host as it likes")
	}
	b.holds("under the flood")
	close(stop)
	wg.Wait()
}

// request is a machine's request for evidence.
func request(t testing.TB, g *guest) *door.EvidenceRequest {
	text, err := json.Marshal(g.quote(nonce))
	if err != nil {
		t.Fatal(err)
	}
	return &door.EvidenceRequest{Nonce: nonce, VM: text}
}

// flood sends one kind of what no host wants to the door of vm-a.
func (s *site) flood(kind int) {
	conn, err := net.Dial("unix", s.path("guests", "vm-a.sock"))
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	b := make([]byte, 1<<20)
	switch kind {
	case 0:
		rand.Read(b)
	case 1: // one line without an end
		for i := range b {
			b[i] = '['
		}
	case 2:
		b = bytes.Repeat([]byte("\n"+`{"id":"1","op":"evidence","body":{"vm":{},"nonce":"AAAA"}}`+"\n"), 1000)
	}
	conn.Write(b) // the daemon closes what is one too many
}

// TestHostRevoked: the operator of the authority revokes the host. Verifiers see it, the
// host's status shows it when a guest enrols, and a new token mends it.
func TestHostRevoked(t *testing.T) {
	s := newSite(t)
	s.startHost()
	s.healthy()
	s.create("vm-a")
	a := s.boot("vm-a")
	a.enrol()
	ev := a.holds("before")
	s.ctl("revoke", "host", "host-1")
	if out, err := s.verify(ev); err == nil || !strings.Contains(out, "revoked") {
		t.Errorf("evidence of a revoked host: %v\n%s", err, out)
	}
	_, err := a.Enrol(t.Context(), attester.AtDoor(a.door), attester.EnrolOptions{})
	if door.Code(err) != door.CodeUnavailable {
		t.Errorf("enrolment by a revoked host: %v", err)
	}
	if st := s.status(); len(st.Problems) == 0 || !strings.Contains(strings.Join(st.Problems, " "), "revoked") {
		t.Errorf("status %+v", st)
	}
	s.write("token", s.ctl("token", "host", "host-1"))
	s.healthy()
	a.enrol()
	a.holds("after a new token")
}

// TestCoprocdRestarts: the daemon connects again, and machines go on. A card that lost
// its store is another card, loudly.
func TestCoprocdRestarts(t *testing.T) {
	s := newSite(t)
	s.startHost()
	first := s.healthy()
	s.card.end()
	s.host.says("the card is not reached")
	s.card.start("ready")
	if again := s.healthy(); again.Card != first.Card {
		t.Errorf("card %s, before %s", again.Card, first.Card)
	}
	s.card.end()
	if err := os.RemoveAll(s.path("card")); err != nil {
		t.Fatal(err)
	}
	s.card.start("ready")
	s.host.says("ANOTHER KEY")
	if again := s.healthy(); again.Card == first.Card {
		t.Error("the card is the same")
	}
	s.create("vm-a")
	a := s.boot("vm-a")
	a.enrol()
	a.holds("with another card")
}

// TestExitCodes: state that somebody else has, or of another TPM, is not better next time.
func TestExitCodes(t *testing.T) {
	s := newSite(t)
	s.startHost()
	s.healthy()
	second := s.process("vtpm-hostd", append(s.host.args, "--socket", s.path("other.sock"))...)
	second.log = s.path("second.log")
	second.start("another process has it open")
	if code := second.end(); code != cli.ExitLasting {
		t.Errorf("exit code %d, want %d", code, cli.ExitLasting)
	}
	if code := s.host.end(); code != 0 {
		t.Errorf("exit code %d of a daemon that was told to end", code)
	}
	moved := s.process("vtpm-hostd", append(s.host.args, "--tpm", "swtpm:"+swtpmtest.Start(t, swtpmtest.Dir(t)))...)
	moved.log = s.path("moved.log")
	moved.start("another TPM")
	if code := moved.end(); code != cli.ExitLasting {
		t.Errorf("exit code %d with another TPM, want %d", code, cli.ExitLasting)
	}
}
