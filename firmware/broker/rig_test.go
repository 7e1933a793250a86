// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card"
)

// hang guards every wait.
const hang = 30 * time.Second

// Opcodes that the fake card gives a meaning of its own.
const (
	opEcho  = abi.OpCardCounters // answers with its payload
	opGrant = abi.OpSlotOpen     // answers with two descriptors
	opBig   = abi.OpSlotList     // answers with as much as there is room for
	opWait  = abi.OpSlotCreate   // ends with its context
)

// fake is a card. A grant's descriptors are ends of pipes: the card keeps the
// reading ones, where it sees when nobody has the others any more.
type fake struct {
	t  testing.TB
	mu sync.Mutex // guards what follows

	principals []card.Principal
	closed     int
	waiting    chan struct{}
	kept       []*os.File
}

type fakeSession struct{ card *fake }

func (c *fake) open(p card.Principal) Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.principals = append(c.principals, p)
	return fakeSession{c}
}

func (s fakeSession) Close() {
	s.card.mu.Lock()
	defer s.card.mu.Unlock()
	s.card.closed++
}

func (s fakeSession) Do(ctx context.Context, sub *abi.Submission, dst []byte) card.Reply {
	switch sub.Op {
	case opEcho:
		return card.Reply{Payload: append(dst, sub.Payload...)}
	case opGrant:
		return card.Reply{Grant: &card.Grant{Number: sub.Slot, Data: s.card.pipe(), Control: s.card.pipe()}}
	case opBig:
		return card.Reply{Payload: dst[:abi.MaxPayload]}
	case opWait:
		s.card.waiting <- struct{}{}
		<-ctx.Done()
		return card.Reply{Status: abi.StatusInternal, Payload: append(dst, "the card is closed"...)}
	}
	return card.Reply{Status: abi.StatusBadOpcode}
}

// files gives the card's ends of what it has granted.
func (c *fake) files() []*os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.kept)
}

// principal gives who came first.
func (c *fake) principal() card.Principal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.principals[0]
}

func (c *fake) pipe() *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, r)
	return w
}

// server is a server under test.
type server struct {
	*Server
	t    testing.TB
	card *fake
	path string
	stop context.CancelFunc
	done chan error
}

func startServer(t testing.TB, cfg Config) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "broker") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, card: &fake{t: t, waiting: make(chan struct{})}, path: filepath.Join(dir, "s"), done: make(chan error, 1)}
	cfg.Open = s.card.open
	if s.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: s.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-s.done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(hang):
			t.Error("Serve does not end")
		}
		if got := s.Stats().Open; got != 0 {
			t.Errorf("%d connections are left", got)
		}
		if s.card.closed != len(s.card.principals) {
			t.Errorf("%d sessions were opened and %d closed", len(s.card.principals), s.card.closed)
		}
		for _, f := range s.card.files() {
			f.Close()
		}
		os.RemoveAll(dir)
	})
	return s
}

// client is a connection to the server.
type client struct {
	*net.UnixConn
	t testing.TB
}

func (s *server) dial() client {
	s.t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: s.path, Net: "unixpacket"})
	if err != nil {
		s.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	s.t.Cleanup(func() { c.Close() })
	return client{c, s.t}
}

func (c client) send(sub abi.Submission) {
	c.t.Helper()
	if _, err := c.Write(abi.AppendSubmission(nil, &sub)); err != nil {
		c.t.Fatal(err)
	}
}

// receive takes a completion, and the descriptors with it.
func (c client) receive() (abi.Completion, []int) {
	c.t.Helper()
	b, oob := make([]byte, abi.MaxMessage+1), make([]byte, unix.CmsgSpace(16))
	n, on, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		c.t.Fatal(err)
	}
	done, err := abi.ParseCompletion(b[:n])
	if err != nil {
		c.t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		c.t.Fatal(err)
	}
	var fds []int
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			c.t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return done, fds
}

// works checks that the connection serves.
func (c client) works() {
	c.t.Helper()
	c.send(abi.Submission{Op: opEcho, Seq: 7, Slot: 3, Payload: []byte("hello")})
	done, _ := c.receive()
	if done.Op != opEcho || done.Seq != 7 || done.Slot != 3 || string(done.Payload) != "hello" {
		c.t.Errorf("answer %+v", done)
	}
}

// ended checks that the server has closed the connection.
func (c client) ended() {
	c.t.Helper()
	b := make([]byte, abi.MaxMessage)
	for {
		n, err := c.Read(b)
		if err == nil && n > 0 {
			continue // an answer from before
		}
		if os.IsTimeout(err) {
			c.t.Error("the connection goes on")
		}
		return
	}
}
