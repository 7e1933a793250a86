// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"
)

// TestHostileServer: a client gives a server up that does not keep to the
// protocol, keeps none of its descriptors, and says so once.
func TestHostileServer(t *testing.T) {
	event := eventFD(t)
	for _, tc := range []struct {
		name   string
		answer func(c *conn, m *message) // to GET_INFO
	}{
		{"hangs up", func(c *conn, _ *message) { c.sock.Close() }},
		{"is silent", func(*conn, *message) {}},
		{"other id", func(c *conn, m *message) {
			c.send(header{id: m.id + 1, command: m.command, flags: flagReply}, make([]byte, 16), nil)
		}},
		{"other command", func(c *conn, m *message) {
			c.send(header{id: m.id, command: CmdReset, flags: flagReply}, make([]byte, 16), nil)
		}},
		{"a command", func(c *conn, m *message) {
			c.send(header{id: m.id, command: 11}, make([]byte, 16), nil)
		}},
		{"a descriptor", func(c *conn, m *message) {
			c.send(header{id: m.id, command: m.command, flags: flagReply}, make([]byte, 16), nil, event)
		}},
		{"size of 1 MiB", func(c *conn, m *message) {
			c.sock.Write(header{id: m.id, command: m.command, flags: flagReply, size: 1 << 20}.append(nil))
		}},
		{"half a reply", func(c *conn, m *message) {
			c.sock.Write(header{id: m.id, command: m.command, flags: flagReply, size: 32}.append(nil))
			c.sock.CloseWrite()
		}},
		{"a short body", func(c *conn, m *message) {
			c.send(header{id: m.id, command: m.command, flags: flagReply}, make([]byte, 8), nil)
			c.sock.Close()
		}},
	} {
		before := countFDs(t)
		ours, theirs := socketPair(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c := newConn(theirs)
			var m message
			if c.receive(&m) != nil {
				return
			}
			c.send(header{id: m.id, command: m.command, flags: flagReply}, helloBody, nil)
			if c.receive(&m) == nil {
				tc.answer(c, &m)
			}
		}()
		ended := make(chan struct{})
		c, err := NewClient(ours, 200*time.Millisecond, func() { close(ended) })
		if err != nil {
			t.Fatalf("%s: NewClient: %v", tc.name, err)
		}
		if i, err := c.Info(); err == nil {
			t.Errorf("%s: Info = %+v, want an error", tc.name, i)
		}
		c.Close()
		c.Close()
		<-ended
		<-done
		if err := c.Reset(); err == nil {
			t.Errorf("%s: a command after the end succeeded", tc.name)
		}
		theirs.Close()
		if n := countFDs(t); n != before {
			t.Errorf("%s: %d descriptors are open, %d before", tc.name, n, before)
		}
	}
}

// TestServerTakesFewDescriptors: a client sends no more descriptors in a message than
// the server has said that it takes, which is one if it says nothing.
func TestServerTakesFewDescriptors(t *testing.T) {
	event := eventFD(t)
	for _, tc := range []struct {
		said []byte
		want int
	}{
		{version{maxFDs: 8, maxTransfer: 4096}.append(nil), 8},
		{make([]byte, versionSize), 1},
		{version{maxFDs: 1000, maxTransfer: 4096}.append(nil), maxFDs},
	} {
		ours, theirs := socketPair(t)
		counts := make(chan int, 64)
		go func() {
			defer close(counts)
			c := newConn(theirs)
			var m message
			for body := tc.said; c.receive(&m) == nil; body = nil {
				counts <- len(m.fds)
				m.closeFDs()
				c.send(header{id: m.id, command: m.command, flags: flagReply}, body, nil)
			}
		}()
		c, err := NewClient(ours, hang, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetVectors(slices.Repeat([]int{event}, 20)); err != nil {
			t.Error(err)
		}
		c.Close()
		most, sum := 0, 0
		for n := range counts {
			most, sum = max(most, n), sum+n
		}
		if most != tc.want || sum != 20 {
			t.Errorf("server that said %q got %d descriptors, at most %d at once, want 20 and %d", tc.said, sum, most, tc.want)
		}
	}
}

// TestNoCommonVersion: a server of another major version is refused.
func TestNoCommonVersion(t *testing.T) {
	ours, theirs := socketPair(t)
	go func() {
		c := newConn(theirs)
		var m message
		if c.receive(&m) == nil {
			c.send(header{id: m.id, command: m.command, flags: flagReply}, version{major: 1}.append(nil), nil)
		}
	}()
	if _, err := NewClient(ours, hang, nil); !errors.Is(err, ErrProtocol) {
		t.Errorf("NewClient: %v, want ErrProtocol", err)
	}
}

// FuzzServe: whatever a client sends after VERSION, the session ends when it
// hangs up, and nothing panics.
func FuzzServe(f *testing.F) {
	for _, c := range codecs {
		h := header{command: CmdSetIRQs, size: uint32(headerSize + len(c.golden))}
		f.Add(append(h.append(nil), c.golden...))
	}
	f.Add(append(header{command: CmdRegionWrite, size: headerSize + 17}.append(nil), access{count: 1}.append(nil)...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		sock, d, wait := serve(t)
		if err := newConn(sock).send(header{command: CmdVersion, flags: flagNoReply}, helloBody, nil); err != nil {
			t.Fatal(err)
		}
		go func() { // what the session answers
			buf := make([]byte, 4096)
			for {
				if _, err := sock.Read(buf); err != nil {
					return
				}
			}
		}()
		sock.Write(stream)
		sock.CloseWrite()
		if err := wait(); err != nil && !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Serve: %v", err)
		}
		if len(d.maps) > len(stream)/mapSize {
			t.Errorf("%d maps of %d bytes", len(d.maps), len(stream))
		}
	})
}
