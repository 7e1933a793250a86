// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// endpoint is a served endpoint that ends with the test.
type endpoint struct {
	addr net.Addr
	end  func()
	done chan error
}

func serve(t *testing.T, addr string) *endpoint {
	t.Helper()
	l, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	e := &endpoint{addr: l.Addr(), end: cancel, done: make(chan error, 1)}
	go func() {
		e.done <- Serve(ctx, l, func(w *Writer) { w.Counter("served_total", "Answers.").Count(1) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-e.done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return e
}

func (e *endpoint) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial(e.addr.Network(), e.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// get asks with Go's own client.
func (e *endpoint) get(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial(e.addr.Network(), e.addr.String())
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func unixAddr(t *testing.T) string { return "unix:" + filepath.Join(t.TempDir(), "m") }

func TestServe(t *testing.T) {
	for _, addr := range []string{unixAddr(t), "127.0.0.1:0"} {
		e := serve(t, addr)
		for range 3 {
			resp, body := e.get(t, "GET", "http://vtpm/metrics")
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != ContentType || !resp.Close {
				t.Errorf("%s: answer %v", addr, resp)
			}
			if got := parse(t, []byte(body))["served_total"].GetMetric()[0].GetCounter().GetValue(); got != 1 {
				t.Errorf("%s: served_total = %v", addr, got)
			}
		}
	}
}

func TestServeRefuses(t *testing.T) {
	e := serve(t, unixAddr(t))
	for _, tt := range []struct {
		method, url string
		want        int
	}{
		{"GET", "http://vtpm/metrics?collect[]=x", 200},
		{"GET", "http://vtpm/", 404},
		{"GET", "http://vtpm/metrics/", 404},
		{"POST", "http://vtpm/metrics", 405},
		{"HEAD", "http://vtpm/other", 404},
	} {
		if resp, body := e.get(t, tt.method, tt.url); resp.StatusCode != tt.want {
			t.Errorf("%s %s: %v %q, want %d", tt.method, tt.url, resp.Status, body, tt.want)
		}
	}
	for _, tt := range []struct{ request, want string }{
		{"\r\n\r\n", "HTTP/1.1 400 "},
		{"GET /metrics\r\n\r\n", "HTTP/1.1 400 "},
		{"GET /metrics HTTP/2.0\r\n\r\n", "HTTP/1.1 400 "},
		{"GET  /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{strings.Repeat("x", maxHeader), "HTTP/1.1 431 "},
		{"GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "},
	} {
		c := e.dial(t)
		if _, err := io.WriteString(c, tt.request); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(got), tt.want) {
			t.Errorf("%.30q got %.40q, %v, want %s", tt.request, got, err, tt.want)
		}
	}
}

func TestRequestInPieces(t *testing.T) {
	c := serve(t, unixAddr(t)).dial(t)
	for _, b := range []byte("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
		t.Errorf("got %q, %v", got, err)
	}
}

// Clients that say nothing take their places and no more, and do not hold up
// the end.
func TestSilentClients(t *testing.T) {
	e := serve(t, unixAddr(t))
	silent := make([]net.Conn, maxConnections)
	for i := range silent {
		silent[i] = e.dial(t)
	}
	extra := e.dial(t)
	if n, err := extra.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one client too many read %d bytes, %v", n, err)
	}
	e.end()
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(exchange - time.Second)) // before they are given up anyway
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a silent client read %d bytes, %v", n, err)
		}
	}
}

func TestListen(t *testing.T) {
	addr := unixAddr(t)
	path := strings.TrimPrefix(addr, "unix:")
	l, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != socketMode {
		t.Errorf("socket %v, %v, want mode %o", fi, err, socketMode)
	}
	if _, err := Listen(addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second Listen: %v, want EADDRINUSE", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as if it was killed
	l.Close()
	again, err := Listen(addr)
	if err != nil {
		t.Fatalf("Listen over a stale socket: %v", err)
	}
	again.Close()

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(addr); err == nil {
		t.Error("Listen replaced a file that is no socket")
	}
	for _, bad := range []string{"", "unix:", "host", "tcp://host:1"} {
		if _, err := Listen(bad); err == nil {
			t.Errorf("Listen(%q) went well", bad)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("GET\r\n\r\n"))
	f.Add([]byte(strings.Repeat("\r\n", 3000)))
	f.Fuzz(func(t *testing.T, request []byte) {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Write(request)
			theirs.Close()
		}()
		status := readRequest(ours, make([]byte, maxHeader))
		ours.Close()
		if status == statusOK && !strings.HasPrefix(string(request), "GET /metrics") {
			t.Errorf("%q was served", request)
		}
	})
}
