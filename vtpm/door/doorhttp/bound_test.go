// SPDX-License-Identifier: Apache-2.0

package doorhttp

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hwvtpm/vtpm/door"
)

// bounded serves a door by a bounded listener.
func bounded(t *testing.T) (*httptest.Server, *Listener) {
	t.Helper()
	s := httptest.NewUnstartedServer(Handler(books{}, nil))
	l := Bound(s.Listener)
	s.Listener = l
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, l
}

// from dials from an address of this machine.
func from(ip string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: time.Minute}
}

// asks has an address ask for something, on a connection of its own.
func asks(t *testing.T, s *httptest.Server, ip string) error {
	t.Helper()
	secure := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	c, err := NewClient(s.URL, secure)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.http.Transport.(*http.Transport).DialContext = from(ip).DialContext
	return c.Call(t.Context(), "hello", nil, nil)
}

// closed tells whether the other end closes a connection that nobody uses.
func closed(t *testing.T, c net.Conn, soon bool) bool {
	t.Helper()
	wait := time.Minute
	if !soon {
		wait = time.Second / 5
	}
	c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 1))
	e, ok := err.(net.Error)
	return err != nil && (!ok || !e.Timeout())
}

// TestFlood: an address that connects without end and says nothing, or asks without end,
// is put off, and others are served.
func TestFlood(t *testing.T) {
	s, l := bounded(t)
	var open []net.Conn
	for i := range mostConns + 8 {
		c, err := from("127.0.0.2").Dial("tcp", l.Addr().String())
		if err == nil {
			defer c.Close()
		}
		switch {
		case i >= mostConns && (err != nil || closed(t, c, true)):
		case i >= mostConns:
			t.Fatalf("connection %d of an address is open", i)
		case err != nil:
			t.Fatal(err)
		default:
			open = append(open, c)
		}
	}
	if closed(t, open[0], false) || closed(t, open[mostConns-1], false) {
		t.Error("connections of an address within its bound are closed")
	}
	if err := asks(t, s, "127.0.0.2"); err == nil {
		t.Error("the address is served above its bound")
	}
	if err := asks(t, s, "127.0.0.3"); err != nil {
		t.Errorf("another address: %v", err)
	}
	for _, c := range open {
		c.Close()
	}
	served := func() bool { return asks(t, s, "127.0.0.2") == nil }
	for deadline := time.Now().Add(time.Minute); !served(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the address is not served after its connections have ended")
		}
	}
}

// TestConnectionRate: an address that connects again and again is put off for a while.
func TestConnectionRate(t *testing.T) {
	s, l := bounded(t)
	for range 4 * connBurst {
		c, err := from("127.0.0.2").Dial("tcp", l.Addr().String())
		if err != nil {
			continue // it was reset before it was there
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if !closed(t, c, true) {
			t.Fatal("a connection goes on after its end")
		}
		c.Close()
	}
	if l.Refused() == 0 {
		t.Error("all connections were served")
	}
	if err := asks(t, s, "127.0.0.3"); err != nil {
		t.Errorf("another address: %v", err)
	}
}

// TestRequestRate: requests of an address beyond its share are refused so that it can ask
// again, whatever they ask for, and those of others are answered.
func TestRequestRate(t *testing.T) {
	h := Handler(books{}, nil)
	ask := func(remote string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path+"hello", strings.NewReader("{}"))
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	busy := 0
	for range 4 * requestBurst {
		switch code := ask("[2001:db8::1]:1"); code {
		case http.StatusOK:
		case statuses[door.CodeBusy]:
			busy++
		default:
			t.Fatalf("status %d", code)
		}
	}
	if busy == 0 || ask("[2001:db8::2]:1") != statuses[door.CodeBusy] {
		t.Errorf("%d requests were put off", busy)
	}
	if code := ask("[2001:db8:0:1::1]:1"); code != http.StatusOK {
		t.Errorf("another network: status %d", code)
	}
}

func TestNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8::7]:1": "2001:db8::/64",
		"[2001:db8::ffff:0:0:7]:1": "2001:db8::/64", "[2001:db8:0:1::]:1": "2001:db8:0:1::/64", "[fe80::1%eth0]:1": "fe80::/64", "@": "@", "": "",
	} {
		if got := network(remote); got != want {
			t.Errorf("network(%q) = %q, want %q", remote, got, want)
		}
	}
}
