// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card"
)

// TestGarbage: what is no submission ends the connection it came on, and none
// else.
func TestGarbage(t *testing.T) {
	good := abi.AppendSubmission(nil, &abi.Submission{Op: opEcho, Payload: []byte("abc")})
	reserved := bytes.Clone(good)
	reserved[2] = 1
	s := startServer(t, Config{})
	other := s.dial()
	for _, tc := range []struct {
		name   string
		packet []byte
	}{
		{"one byte", []byte{1}},
		{"header cut off", good[:abi.HeaderSize-1]},
		{"payload cut off", good[:len(good)-1]},
		{"a byte too many", append(bytes.Clone(good), 0)},
		{"reserved field", reserved},
		{"all ones", bytes.Repeat([]byte{0xff}, 64)},
		{"more than a message", make([]byte, 3*abi.MaxMessage)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.dial()
			c.works()
			if _, err := c.Write(tc.packet); err != nil {
				t.Fatal(err)
			}
			c.ended()
			other.works()
		})
	}
}

// TestSilence: who says nothing at first is not waited for; who did may pause.
func TestSilence(t *testing.T) {
	const patience = 500 * time.Millisecond // which works is to be within
	s := startServer(t, Config{FirstTimeout: patience})
	talker := s.dial()
	talker.works()
	s.dial().ended()
	time.Sleep(2 * patience)
	talker.works()
}

// TestFlood: a client that only sends is held up by its own unread answers, and
// loses its connection. Others are served meanwhile.
func TestFlood(t *testing.T) {
	s := startServer(t, Config{SendTimeout: 200 * time.Millisecond})
	c, other := s.dial(), s.dial()
	msg := abi.AppendSubmission(nil, &abi.Submission{Op: opBig})
	for i := 0; ; i++ {
		if _, err := c.Write(msg); err != nil {
			if os.IsTimeout(err) {
				t.Error("the flood is never stopped")
			}
			break
		}
		if i%64 == 0 {
			other.works()
		}
	}
	other.works()
}

// TestLimits: each user has its share, and gets it back.
func TestLimits(t *testing.T) {
	const limit = 3
	s := startServer(t, Config{MaxConnsPerUser: limit})
	var all []client
	for range limit {
		c := s.dial()
		c.works()
		all = append(all, c)
	}
	s.dial().ended()
	if got := s.Stats(); got.Refused != 1 || got.Open != limit {
		t.Errorf("stats %+v", got)
	}
	all[0].Close()
	for deadline := time.Now().Add(hang); s.Stats().Open == limit; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a closed connection still counts")
		}
	}
	s.dial().works()
}

func TestLimitOfAllUsers(t *testing.T) {
	s, err := New(Config{Open: func(card.Principal) Session { return nil }, MaxConns: 2, MaxConnsPerUser: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct {
		uid         uint32
		admin, want bool
	}{
		{1000, false, true}, {1001, false, true}, {1002, false, false}, // all together
		{0, true, true}, {0, true, true}, {0, true, false}, // administrators have their own limit only
	} {
		if got := s.enter(tc.uid, tc.admin); got != tc.want {
			t.Errorf("connection %d of user %d is let in: %t, want %t", i, tc.uid, got, tc.want)
		}
	}
	s.leave(1000, false)
	if !s.enter(1002, false) {
		t.Error("room that was left is not given to the next")
	}
}

// TestForeignDescriptors: descriptors that a client sends do not stay with the
// server.
func TestForeignDescriptors(t *testing.T) {
	s := startServer(t, Config{})
	c := s.dial()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rights := unix.UnixRights(int(w.Fd()), int(w.Fd()), int(w.Fd()))
	msg := abi.AppendSubmission(nil, &abi.Submission{Op: opEcho})
	if _, _, err := c.WriteMsgUnix(msg, rights, nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	c.receive()
	r.SetReadDeadline(time.Now().Add(hang))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read from a pipe that nobody should have: %v, want EOF", err)
	}
	c.works()
}

// FuzzPacket: whatever a packet holds, it is refused as a whole or answered by a
// completion that parses and names it.
func FuzzPacket(f *testing.F) {
	f.Add([]byte{})
	for _, op := range []abi.Opcode{opEcho, opBig, 0, 0xff} {
		f.Add(abi.AppendSubmission(nil, &abi.Submission{Op: op, Slot: 1, Seq: 2, Payload: []byte("xyz")}))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > 0 && (abi.Opcode(packet[0]) == opWait || abi.Opcode(packet[0]) == opGrant) {
			t.Skip("the fake's own opcode")
		}
		f := &fake{t: t}
		c := &conn{session: f.open(card.Principal{})}
		msg, _, err := c.execute(context.Background(), packet)
		sub, perr := abi.ParseSubmission(packet)
		if (err == nil) != (perr == nil) {
			t.Fatalf("execute: %v, packet: %v", err, perr)
		}
		if err != nil {
			return
		}
		done, err := abi.ParseCompletion(msg)
		if err != nil || done.Op != sub.Op || done.Seq != sub.Seq || done.Slot != sub.Slot {
			t.Fatalf("answer %+v, %v to %+v", done, err, sub)
		}
	})
}
