// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

func TestAnswers(t *testing.T) {
	s := startServer(t, Config{})
	c := s.dial()
	c.works()
	c.send(abi.Submission{Op: 0x7f, Payload: bytes.Repeat([]byte{1}, abi.MaxPayload)})
	if done, fds := c.receive(); done.Status != abi.StatusBadOpcode || len(fds) != 0 {
		t.Errorf("answer to an unknown opcode: %+v with descriptors %v", done, fds)
	}
	if p := s.card.principal(); !p.Admin || p.Name == "" {
		t.Errorf("the server's own user is %+v, want a named administrator", p)
	}
}

// TestGrant: descriptors go to the client, and stay nowhere else.
func TestGrant(t *testing.T) {
	s := startServer(t, Config{})
	c := s.dial()
	c.send(abi.Submission{Op: opGrant, Slot: 5})
	done, fds := c.receive()
	if done.Status != abi.StatusOK || len(fds) != 2 {
		t.Fatalf("answer %+v with descriptors %v, want two", done, fds)
	}
	for i, fd := range fds {
		if _, err := unix.Write(fd, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		var b [2]byte
		for n, want := range []int{1, 0} { // the byte, then the end
			if got, err := unix.Read(int(s.card.files()[i].Fd()), b[:]); got != want || err != nil || b[0] != byte(i) {
				t.Errorf("descriptor %d, read %d: %d bytes, %v", i, n, got, err)
			}
		}
	}
}

// TestGrantToNobody: a client that is gone before its answer leaves nothing
// behind.
func TestGrantToNobody(t *testing.T) {
	s := startServer(t, Config{})
	c := s.dial()
	c.send(abi.Submission{Op: opGrant})
	c.Close()
	for deadline := time.Now().Add(hang); s.Stats().Open != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection is still open")
		}
	}
	for _, f := range s.card.files() {
		f.SetReadDeadline(time.Now().Add(hang))
		if n, err := f.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
			t.Errorf("a descriptor is still open: %d, %v", n, err)
		}
	}
}

// TestEnd: the end of the server ends what is being executed, with an answer.
func TestEnd(t *testing.T) {
	s := startServer(t, Config{})
	c, idle := s.dial(), s.dial()
	idle.works()
	c.send(abi.Submission{Op: opWait})
	<-s.card.waiting
	s.stop()
	if done, _ := c.receive(); done.Status != abi.StatusInternal || string(done.Payload) != "the card is closed" {
		t.Errorf("answer %+v", done)
	}
	c.ended()
	idle.ended()
}

func TestPolicy(t *testing.T) {
	own := uint32(os.Geteuid())
	p := Policy{UIDs: []uint32{1001}, GIDs: []uint32{50, 51}}
	for _, tc := range []struct {
		name string
		who  credentials
		want bool
	}{
		{"root", credentials{uid: 0, gid: 9}, true},
		{"own user", credentials{uid: own, gid: 9}, true},
		{"named user", credentials{uid: 1001, gid: 9}, true},
		{"primary group", credentials{uid: 1002, gid: 51}, true},
		{"other group", credentials{uid: 1002, gid: 9, groups: []uint32{4, 50}}, true},
		{"group with the number of a user", credentials{uid: 1002, gid: 1001, groups: []uint32{0}}, false},
		{"nobody", credentials{uid: 65534, gid: 65534}, false},
	} {
		if got := p.admin(tc.who); got != tc.want {
			t.Errorf("%s: administrator %t, want %t", tc.name, got, tc.want)
		}
	}
}

func TestPeerCredentials(t *testing.T) {
	s := startServer(t, Config{})
	c := s.dial()
	who, err := peerCredentials(c.UnixConn) // the server is this process too
	if err != nil || int(who.uid) != os.Geteuid() || int(who.gid) != os.Getegid() || int(who.pid) != os.Getpid() {
		t.Errorf("credentials %+v, %v", who, err)
	}
	want, err := os.Getgroups()
	if err != nil || len(want) != len(who.groups) {
		t.Errorf("groups %v, want %v, %v", who.groups, want, err)
	}
}
