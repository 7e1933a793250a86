// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
)

// startedPeer is a peer of a slot, with a data channel.
func startedPeer(t *testing.T, slot coproc.Slot) *peer {
	t.Helper()
	p := dialPeer(t, serveSlot(t, slot, nil))
	if res := p.openData(); res != resOK {
		t.Fatalf("SET_DATAFD = %#x", res)
	}
	return p
}

// What the slot is asked to do in the life of a machine. Each line is the
// requests and commands, and what comes of them at the slot.
func TestPowerLife(t *testing.T) {
	tests := []struct {
		name string
		do   string
		want string
	}{
		{"start", "init", "power-on 1"},
		{"reset", "init random stop init", "power-on 1, random, shutdown, reset"},
		{"reset without STOP", "init random init", "power-on 1, random, shutdown, reset"},
		{"an orderly guest is not shut down twice", "init random shutdown-command stop init", "power-on 1, random, shutdown, reset"},
		{"unless it went on", "init shutdown-command random stop init", "power-on 1, shutdown, random, shutdown, reset"},
		{"a suspension that went on", "init suspend-command random stop init", "power-on 1, shutdown state, random, shutdown state, reset"},
		{"after which all is as ever", "init suspend-command stop init random stop init", "power-on 1, shutdown state, reset, random, shutdown, reset"},
		{"nothing ran", "init stop init", "power-on 1, reset"},
		{"stopped twice", "init random stop stop", "power-on 1, random, shutdown"},
		{"the end", "init random end", "power-on 1, random, shutdown"},
		{"the end while off", "end", ""},
		{"hang-up", "init random hangup", "power-on 1, random, shutdown"},
		{"commands while off", "random init stop random", "power-on 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slot := &fakeSlot{}
			gone := make(chan error, 1)
			p := dialPeer(t, serveSlot(t, slot, func(c *Config) { c.OnDisconnect = func(err error) { gone <- err } }))
			p.openData()
			for word := range strings.FieldsSeq(tt.do) {
				act(p, word)
			}
			p.hangUp()
			if err := <-gone; err != nil {
				t.Errorf("the session ended with %v", err)
			}
			if strings.HasSuffix(tt.do, "stop init") { // whose end is not looked at
				slot.calls = slot.calls[:min(len(slot.calls), strings.Count(tt.want, ",")+1)]
			}
			if got := strings.Join(slot.took(), ", "); got != tt.want {
				t.Errorf("the slot was asked to %q, want %q", got, tt.want)
			}
		})
	}
}

func act(p *peer, word string) {
	p.Helper()
	switch word {
	case "init":
		if res := p.result(words(cmdInit, 0)); res != resOK {
			p.Errorf("INIT = %#x", res)
		}
	case "stop":
		p.result(words(cmdStop))
	case "end":
		p.result(words(cmdShutdown))
	case "hangup":
		p.hangUp()
	case "random":
		p.rc(getRandom)
	case "shutdown-command":
		p.rc(shutdownClear)
	case "suspend-command":
		p.rc(shutdownState)
	}
}

// INIT is _TPM_Init, whatever the slot still knows of the run.
func TestInitNeverResumes(t *testing.T) {
	for name, slot := range map[string]*fakeSlot{
		"resumed": {resumed: true},
		"failed":  {powerErr: coproc.ErrFailed},
	} {
		t.Run(name, func(t *testing.T) {
			p := startedPeer(t, slot)
			if res := p.result(words(cmdInit, 0)); res != resOK {
				t.Fatalf("INIT = %#x", res)
			}
			if diff := cmp.Diff([]string{"power-on 1", "reset"}, slot.took()); diff != "" {
				t.Errorf("at the slot:\n%s", diff)
			}
			if rc := p.rc(getRandom); rc != 0 {
				t.Errorf("a command after INIT: %#x", rc)
			}
		})
	}
}

// A TPM that can't be had fails the machine's start, and a reset that fails
// leaves the machine with a TPM in failure mode.
func TestInitFailures(t *testing.T) {
	slot := &fakeSlot{powerErr: errors.New("no card")}
	p := startedPeer(t, slot)
	if res := p.result(words(cmdInit, 0)); res != resFail {
		t.Errorf("INIT without a card = %#x, want %#x", res, resFail)
	}
	if rc := p.rc(getRandom); rc != rcFailure {
		t.Errorf("a command after that: %#x", rc)
	}
	slot.change(func() { slot.powerErr, slot.resetErr = nil, errors.New("no space") })
	for range 2 { // the first one powers on, the second resets
		if res := p.result(words(cmdInit, 0)); res != resOK {
			t.Errorf("INIT = %#x", res)
		}
	}
	if rc := p.rc(getRandom); rc != rcFailure {
		t.Errorf("a command after a failed reset: %#x, want %#x", rc, rcFailure)
	}
	slot.change(func() { slot.resetErr = nil })
	p.result(words(cmdInit, 0))
	if rc := p.rc(getRandom); rc != 0 {
		t.Errorf("a command after the next reset: %#x", rc)
	}
}

// Another QEMU process is another run and powers on; the same process again is
// reset.
func TestRunsOfPeers(t *testing.T) {
	slot := &fakeSlot{}
	runs := []byte{1, 1, 2}
	gone := make(chan error)
	path := serveSlot(t, slot, func(c *Config) {
		c.OnConnect = func(p Peer) coproc.RunID {
			if p.PID == 0 {
				t.Error("the peer's process is not known")
			}
			run := coproc.RunID{runs[0]}
			runs = runs[1:]
			return run
		}
		c.OnDisconnect = func(err error) { gone <- err }
	})
	for range 3 {
		p := dialPeer(t, path)
		p.result(words(cmdInit, 0))
		p.hangUp()
		<-gone
	}
	if diff := cmp.Diff([]string{"power-on 1", "reset", "power-on 2"}, slot.took()); diff != "" {
		t.Errorf("at the slot:\n%s", diff)
	}
}

// noticing is a log of which only counts that there is something in it.
type noticing struct{ atomic.Bool }

func (n *noticing) Write(b []byte) (int, error) {
	n.Store(true)
	return len(b), nil
}

// Who hangs up without a word was only looking whether anybody listens.
func TestProbeIsNoMachine(t *testing.T) {
	var log noticing
	path := serveSlot(t, &fakeSlot{}, func(c *Config) {
		c.OnDisconnect = func(error) { log.Store(true) }
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
	})
	dialPeer(t, path).hangUp()
	p := dialPeer(t, path)
	p.ask(words(cmdGetConfig)) // sessions come one after the other
	if log.Load() {
		t.Error("a probe was noticed")
	}
}

func TestLocalityReachesTheSlot(t *testing.T) {
	slot := &fakeSlot{}
	p := startedPeer(t, slot)
	p.result(words(cmdInit, 0))
	for _, locality := range []uint8{3, 0, 1} {
		p.result(append(words(cmdSetLocality), locality))
		p.rc(getRandom)
		if got := slot.lastLocality(); got != locality {
			t.Errorf("locality = %d, want %d", got, locality)
		}
	}
	p.result(append(words(cmdSetLocality), 4)) // refused, so nothing changes
	if p.rc(getRandom); slot.lastLocality() != 1 {
		t.Errorf("locality = %d, want 1", slot.lastLocality())
	}
}

// A running command is canceled at once when QEMU asks for it, and when QEMU is
// gone; the session then ends in order.
func TestCancel(t *testing.T) {
	for _, how := range []string{"CANCEL_TPM_CMD", "hang-up"} {
		t.Run(how, func(t *testing.T) {
			running := make(chan struct{}, 1)
			slot := &fakeSlot{cancel: make(chan struct{}, 1)}
			slot.answer = func(cmd coproc.Command, resp []byte) (int, error) {
				if codeOf(cmd.Bytes) == ccShutdown {
					return putError(resp, 0), nil
				}
				running <- struct{}{}
				<-slot.cancel
				return putError(resp, rcCanceled), nil
			}
			gone := make(chan error, 1)
			p := dialPeer(t, serveSlot(t, slot, func(c *Config) { c.OnDisconnect = func(err error) { gone <- err } }))
			p.openData()
			p.result(words(cmdInit, 0))
			if _, err := p.data.Write(getRandom); err != nil {
				t.Fatal(err)
			}
			<-running
			if how == "hang-up" {
				p.control.Close()
			} else {
				if res := p.result(words(cmdCancelTPMCmd)); res != resOK {
					t.Errorf("CANCEL_TPM_CMD = %#x", res)
				}
				if resp := p.read(p.data); codeOf(resp) != rcCanceled {
					t.Errorf("the command was answered % x", resp)
				}
				p.hangUp()
			}
			if err := <-gone; err != nil {
				t.Errorf("the session ended with %v", err)
			}
			if calls := slot.took(); !slices.Contains(calls, "shutdown") {
				t.Errorf("no orderly end: %v", calls)
			}
		})
	}
}

// Whatever a slot does, the guest gets a TPM's answer.
func TestSlotFailures(t *testing.T) {
	p := func(rc uint32, n int, err error) func(coproc.Command, []byte) (int, error) {
		return func(_ coproc.Command, resp []byte) (int, error) {
			putError(resp, rc)
			return n, err
		}
	}
	for name, tt := range map[string]struct {
		answer func(coproc.Command, []byte) (int, error)
		rc     uint32
	}{
		"failed":             {p(rcFailure, 10, coproc.ErrFailed), rcFailure},
		"timed out":          {p(0, 0, coproc.ErrTimeout), rcCanceled},
		"short response":     {p(0, 9, nil), rcFailure},
		"long response":      {p(0, 11, nil), rcFailure},
		"absurd length":      {p(0, 1<<20, nil), rcFailure},
		"negative length":    {p(0, -1, nil), rcFailure},
		"over the limit":     {longResponse, rcFailure},
		"a TPM's own error":  {p(0x922, 10, nil), 0x922},
		"and plain success":  {p(0, 10, nil), 0},
		"closed by somebody": {p(0, 0, coproc.ErrClosed), rcFailure},
	} {
		t.Run(name, func(t *testing.T) {
			slot := &fakeSlot{answer: tt.answer}
			p := startedPeer(t, slot)
			p.result(words(cmdSetBufferSize, minBuffer))
			p.result(words(cmdInit, 0))
			if resp := p.execute(getRandom); !whole(resp) || codeOf(resp) != tt.rc {
				t.Errorf("response %s, want code %#x", hex.EncodeToString(resp), tt.rc)
			}
		})
	}
}

func longResponse(_ coproc.Command, resp []byte) (int, error) {
	n := minBuffer + 1
	putError(resp, 0)
	order.PutUint32(resp[2:], uint32(n))
	return n, nil
}

// A row of failures is one line in the log.
func TestFailuresAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	slot := &fakeSlot{answer: func(coproc.Command, []byte) (int, error) { return 0, coproc.ErrClosed }}
	gone := make(chan error, 1)
	p := dialPeer(t, serveSlot(t, slot, func(c *Config) {
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
		c.OnDisconnect = func(err error) { gone <- err }
	}))
	p.openData()
	p.result(words(cmdInit, 0))
	for range 50 {
		p.rc(getRandom)
	}
	p.hangUp()
	<-gone
	if n := strings.Count(log.String(), "did not serve"); n != 1 {
		t.Errorf("50 failures made %d lines:\n%s", n, &log)
	}
}

func TestInformationOfTheTPM(t *testing.T) {
	p := dialPeer(t, startOurs(t))
	p.openData()
	ask := func(flags byte) []byte {
		return p.ask(append(words(cmdGetInfo, 0), 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0))
	}
	if got := result(order.Uint32(ask(3))); got != resFail {
		t.Errorf("GET_INFO before Startup = %#x, want %#x", got, resFail)
	}
	p.result(words(cmdInit, 0))
	p.rc(startup)
	for flags, want := range map[byte]string{
		1: `{"TPMSpecification":{"family":"2.0","level":0,"revision":164}}`,
		3: `{"TPMSpecification":{"family":"2.0","level":0,"revision":164},"TPMAttributes":{"manufacturer":"id:49424d00","version":"id:20191023","model":"SW   TPM"}}`,
	} {
		got := ask(flags)
		if len(got) < 12 || string(got[12:]) != want+"\x00" || int(order.Uint32(got[4:])) != len(want)+1 {
			t.Errorf("GET_INFO %d = % x %q, want %s", flags, got[:12], got[12:], want)
		}
	}
}
