// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// newServer is a server on a new slot, without a socket.
func newServer(t *testing.T) (*server, *rig) {
	t.Helper()
	r := newRig(t)
	return &server{slot: r.slot, running: &running{cancelTPM: func() {}}}, r
}

// ask handles one submission and parses the completion.
func ask(t *testing.T, s *server, sub abi.Submission) (abi.Completion, bool) {
	t.Helper()
	return askRaw(t, s, abi.AppendSubmission(nil, &sub))
}

func askRaw(t *testing.T, s *server, msg []byte) (abi.Completion, bool) {
	t.Helper()
	n, last := s.handle(msg)
	c, err := abi.ParseCompletion(bytes.Clone(s.out[:n]))
	if err != nil {
		t.Fatalf("completion %x: %v", s.out[:n], err)
	}
	return c, last
}

var hello = abi.AppendHello(nil, abi.Hello{Min: 1, Max: 1})

// TestStatuses walks through what a driver can do wrong.
func TestStatuses(t *testing.T) {
	s, _ := newServer(t)
	run := make([]byte, abi.RunIDSize)
	for _, step := range []struct {
		name string
		sub  abi.Submission
		want abi.Status
	}{
		{"before identify", abi.Submission{Op: abi.OpHealth}, abi.StatusOrder},
		{"no version", abi.Submission{Op: abi.OpIdentify, Payload: abi.AppendHello(nil, abi.Hello{Min: 7, Max: 8})}, abi.StatusBadVersion},
		{"identify", abi.Submission{Op: abi.OpIdentify, Payload: hello}, abi.StatusOK},
		{"unknown opcode", abi.Submission{Op: 0x77}, abi.StatusBadOpcode},
		{"other slot", abi.Submission{Op: abi.OpHealth, Slot: 1}, abi.StatusNoSlot},
		{"execute before power-on", abi.Submission{Op: abi.OpExecute, Seq: 1, Payload: cmdStart}, abi.StatusOrder},
		{"reset before power-on", abi.Submission{Op: abi.OpReset}, abi.StatusOrder},
		{"short run id", abi.Submission{Op: abi.OpPowerOn, Payload: run[1:]}, abi.StatusBadField},
		{"power-on", abi.Submission{Op: abi.OpPowerOn, Payload: run}, abi.StatusOK},
		{"reset with payload", abi.Submission{Op: abi.OpReset, Payload: run}, abi.StatusBadField},
		{"startup", abi.Submission{Op: abi.OpExecute, Seq: 5, Payload: bytes.Clone(cmdStart)}, abi.StatusOK},
		{"old number", abi.Submission{Op: abi.OpExecute, Seq: 4, Payload: bytes.Clone(cmdStart)}, abi.StatusSequence},
		{"health", abi.Submission{Op: abi.OpHealth}, abi.StatusOK},
		{"reset", abi.Submission{Op: abi.OpReset}, abi.StatusOK},
	} {
		c, last := ask(t, s, step.sub)
		if c.Status != step.want {
			t.Errorf("%s: status %v, want %v (%q)", step.name, c.Status, step.want, c.Payload)
		}
		if c.Op != step.sub.Op || c.Seq != step.sub.Seq {
			t.Errorf("%s: completion %+v is not for %+v", step.name, c, step.sub)
		}
		if wantLast := step.sub.Op == abi.OpIdentify && step.want != abi.StatusOK; last != wantLast {
			t.Errorf("%s: last = %t, want %t", step.name, last, wantLast)
		}
	}
	if c, _ := askRaw(t, s, []byte("garbage")); c.Status != abi.StatusBadField {
		t.Errorf("garbage: status %v, want %v", c.Status, abi.StatusBadField)
	}
	if c, last := ask(t, s, abi.Submission{Op: abi.OpClose}); c.Status != abi.StatusOK || !last {
		t.Errorf("close: status %v, last %t", c.Status, last)
	}
}

// TestOpenErrorIsTold: a worker whose slot cannot be opened says why, and ends.
func TestOpenErrorIsTold(t *testing.T) {
	s := &server{openErr: errForeign, running: &running{}}
	c, last := ask(t, s, abi.Submission{Op: abi.OpIdentify, Payload: hello})
	if c.Status != abi.StatusForeign || !last || !strings.Contains(string(c.Payload), "another slot") {
		t.Errorf("identify = %v %q, last %t", c.Status, c.Payload, last)
	}
}

// TestServeEndsWithSocket runs serve on a real socket pair: it answers, wipes
// what it held, and ends in order at the end of file.
func TestServeEndsWithSocket(t *testing.T) {
	s, _ := newServer(t)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	driver := os.NewFile(uintptr(p[0]), "driver")
	go func() {
		driver.Write(abi.AppendSubmission(nil, &abi.Submission{Op: abi.OpIdentify, Payload: hello}))
		driver.Write(make([]byte, abi.MaxMessage+100)) // cut by the socket
		b := make([]byte, abi.MaxMessage)
		driver.Read(b)
		driver.Read(b)
		driver.Close()
	}()
	if err := s.serve(p[1]); err != nil {
		t.Errorf("serve: %v", err)
	}
	unix.Close(p[1])
	if n := bytes.Count(s.out[:], []byte{0}); n != len(s.out) {
		t.Errorf("%d bytes of an answer are left in memory", len(s.out)-n)
	}
}

// TestCancelOnlyTheNamed: a cancel for another command than the running one
// does nothing.
func TestCancelOnlyTheNamed(t *testing.T) {
	canceled := 0
	r := &running{cancelTPM: func() { canceled++ }}
	r.cancel(1)
	r.begin(2)
	r.cancel(1)
	r.cancel(3)
	if canceled != 0 {
		t.Errorf("%d cancels reached the TPM, want none", canceled)
	}
	r.cancel(2)
	r.end()
	r.cancel(2)
	if canceled != 1 {
		t.Errorf("%d cancels reached the TPM, want 1", canceled)
	}
}

// TestCancelOvertakes: a cancel that comes before its command waits for it, and for
// no other.
func TestCancelOvertakes(t *testing.T) {
	r := &running{cancelTPM: func() { t.Error("a cancel reached the TPM") }}
	r.cancel(2)
	for _, c := range []struct {
		seq  uint64
		want bool
	}{{2, true}, {2, false}, {3, false}, {5, false}} {
		if got := r.begin(c.seq); got != c.want {
			t.Errorf("command %d is canceled before it began: %t, want %t", c.seq, got, c.want)
		}
		r.end()
		r.cancel(c.seq) // too late
		if c.seq == 3 {
			r.cancel(4) // which never comes
		}
	}
}

// TestControlChannel: pings are answered, garbage is not, and the end of file
// ends it.
func TestControlChannel(t *testing.T) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	canceled := 0
	r := &running{cancelTPM: func() { canceled++ }}
	go func() {
		serveControl(p[1], r, always)
		close(done)
	}()
	unix.Write(p[0], []byte("garbage"))
	unix.Write(p[0], make([]byte, 100))
	unix.Write(p[0], abi.AppendControl(nil, abi.Control{Op: abi.ControlPing, Arg: 42}))
	b := make([]byte, 100)
	n, err := unix.Read(p[0], b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := abi.ParseControl(b[:n])
	if want := (abi.Control{Op: abi.ControlPong, Arg: 42}); err != nil || c != want {
		t.Errorf("ping answered with %+v, %v, want %+v", c, err, want)
	}
	r.begin(7)
	unix.Close(p[0])
	<-done
	unix.Close(p[1])
	if canceled != 1 {
		t.Errorf("the end of the channel canceled %d times, want once", canceled)
	}
}

func TestParseArgs(t *testing.T) {
	for _, tc := range []struct {
		args []string
		ok   bool
	}{
		{[]string{"--state", "/x"}, true},
		{nil, false},
		{[]string{"--state", "/x", "extra"}, false},
		{[]string{"--nonsense"}, false},
	} {
		cfg, err := ParseArgs(tc.args, &bytes.Buffer{})
		if (err == nil) != tc.ok || tc.ok && cfg.StateDir != "/x" {
			t.Errorf("ParseArgs(%q) = %+v, %v", tc.args, cfg, err)
		}
	}
}

// FuzzExecute: whatever a guest sends, it gets a well-formed TPM response and
// the TPM does not fail.
func FuzzExecute(f *testing.F) {
	for _, cmd := range [][]byte{cmdStart, cmdExtend, cmdEvent, cmdStartSession, cmdDefine,
		command(0x17b, 0, nil, 0, 8), command(0x131, 1, authPW, 0, 4, 0, 0, 0, 0), {}, {0x80}} {
		f.Add(uint8(0), cmd)
	}
	f.Fuzz(func(t *testing.T, locality uint8, cmd []byte) {
		if len(cmd) > abi.MaxPayload {
			return
		}
		r := newRig(t)
		defer r.shut()
		r.powerOn(r.run)
		r.tpm.Startup()
		resp := make([]byte, abi.MaxPayload)
		n, _, err := r.slot.execute(r.seq+1, locality%(abi.MaxLocality+1), bytes.Clone(cmd), resp)
		if errors.Is(err, errFailed) {
			t.Fatalf("%x failed the TPM", cmd)
		}
		if err != nil || n < tpmHeaderSize || int(resp[4])<<8|int(resp[5]) != n {
			t.Fatalf("%x = %x, %v", cmd, resp[:n], err)
		}
	})
}
