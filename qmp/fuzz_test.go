// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// FuzzStream feeds hostile bytes, cut into writes anyhow, through a socket and
// Drain. The client must see the same events, and the same end, as one that is
// given whole lines.
func FuzzStream(f *testing.F) {
	for _, seed := range []string{
		`{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 1, "microseconds": 2}}` + "\r\n",
		`{"return": {}, "id": 0}` + "\n" + `{"event": "A"}` + "\n\n" + `{"event": "B"}` + "\n" + `{"event": "C`,
		`{"error": {"class": "GenericError", "desc": "x"}, "id": 17}` + "\n" + `{"event": "A"}` + "\n",
		`{"event": "A"}` + "\n" + `{"return": {}}` + "\n" + `{"event": "B"}` + "\n",
		`{"QMP": {}}` + "\n", "[]\n", "\x00\n", "{\n}\n",
	} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(1))
		f.Add([]byte(seed), uint8(7))
	}
	f.Fuzz(func(t *testing.T, stream []byte, chunk uint8) {
		if len(stream) > 16<<10 {
			t.Skip("longer than fits into a socket in single bytes")
		}
		want, wantErr := eventsOfLines(stream)
		got, gotErr := eventsOfSocket(t, stream, int(chunk))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-lines +socket):\n%s", diff)
		}
		if (wantErr == nil) != (gotErr == nil) || gotErr != nil && !errors.Is(gotErr, ErrProtocol) {
			t.Errorf("got error %v, by lines %v", gotErr, wantErr)
		}
	})
}

// eventsOfLines is the oracle: one complete line at a time, no socket.
func eventsOfLines(stream []byte) ([]Event, error) {
	c := &Client{
		log:          hclog.NewNullLogger(),
		eventLimit:   1 << 20,
		greetingDone: make(chan struct{}),
		nextID:       1,
		subs:         make(map[*Subscription]struct{}),
	}
	close(c.greetingDone)
	s := c.Subscribe()
	for {
		line, rest, ok := bytes.Cut(stream, []byte("\n"))
		if !ok {
			return taken(s), nil
		}
		stream = rest
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := c.dispatch(line); err != nil {
			return taken(s), err
		}
	}
}

// eventsOfSocket writes stream in chunks and looks with Drain.
func eventsOfSocket(t *testing.T, stream []byte, chunk int) ([]Event, error) {
	peer, conn := socketPair(t)
	defer peer.Close()
	go func() {
		// Failures show as a failed handshake.
		_, _ = peer.Write([]byte(`{"QMP": {}}` + "\n"))
		_, _ = peer.Read(make([]byte, 1024))
		_, _ = peer.Write([]byte(`{"return": {}, "id": 0}` + "\n"))
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := New(ctx, conn, WithEventLimit(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := c.Subscribe()
	for len(stream) > 0 {
		n := len(stream)
		if chunk > 0 {
			n = min(n, chunk)
		}
		if _, err := peer.Write(stream[:n]); err != nil {
			break // the client has hung up on us
		}
		stream = stream[n:]
	}
	err = c.Drain()
	return taken(s), err
}

func taken(s *Subscription) []Event {
	var all []Event
	for {
		e, ok := s.TryNext()
		if !ok {
			return all
		}
		all = append(all, e)
	}
}

func socketPair(t *testing.T) (peer, conn *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}
