// SPDX-License-Identifier: Apache-2.0

package doorhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"hwvtpm/vtpm/door"
)

// books answers by what a code is asked for.
type books struct{}

func (books) Do(_ context.Context, caller door.Caller, op string, body json.RawMessage) (any, error) {
	var asked struct{ Code string }
	if err := door.Decode(body, &asked); err != nil {
		return nil, err
	}
	switch {
	case op == "large":
		return make([]byte, door.MaxAnswer), nil
	case asked.Code == "inside":
		return nil, io.ErrNoProgress
	case asked.Code != "":
		return nil, door.Errorf(asked.Code, "as asked")
	}
	return door.Hello{Version: caller.UID, VM: op}, nil
}

func start(t *testing.T, h http.Handler) (*httptest.Server, *Client) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c, err := NewClient(s.URL, &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

func TestCall(t *testing.T) {
	_, c := start(t, Handler(books{}, nil))
	var got door.Hello
	if err := c.Call(t.Context(), "hello", nil, &got); err != nil || got != (door.Hello{Version: -1, VM: "hello"}) {
		t.Errorf("%+v, %v", got, err)
	}
	type asked struct{ Code string }
	for _, code := range []string{door.CodeBadRequest, door.CodeDenied, door.CodeNotFound, door.CodeBusy, door.CodeUnavailable, door.CodeInternal} {
		err := c.Call(t.Context(), "vm", asked{code}, nil)
		if e, ok := errors.AsType[*door.Error](err); !ok || e.Op != "vm" || e.Code != code || e.Message != "as asked" {
			t.Errorf("%s: %v", code, err)
		}
	}
	if err := c.Call(t.Context(), "vm", asked{"inside"}, nil); door.Code(err) != door.CodeInternal || strings.Contains(err.Error(), io.ErrNoProgress.Error()) {
		t.Errorf("an error of the inside: %v", err)
	}
	for what, err := range map[string]error{
		"unknown member":     c.Call(t.Context(), "vm", map[string]int{"more": 1}, nil),
		"too large a body":   c.Call(t.Context(), "vm", bytes.Repeat([]byte("x"), door.MaxRequest), nil),
		"too large a result": c.Call(t.Context(), "large", nil, nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestHandlerBounds(t *testing.T) {
	s, _ := start(t, Handler(books{}, func(r *http.Request) (door.Caller, error) {
		if r.Header.Get("X") != "" {
			return door.Caller{}, door.Errorf(door.CodeDenied, "not you")
		}
		return door.Caller{}, nil
	}))
	for name, tc := range map[string]struct {
		method, path, header string
		body                 io.Reader
		status               int
	}{
		"good":      {"POST", "/v1/door/hello", "", nil, 200},
		"method":    {"GET", "/v1/door/hello", "", nil, 405},
		"no op":     {"POST", "/v1/door/", "", nil, 404},
		"deeper":    {"POST", "/v1/door/a/b", "", nil, 404},
		"garbage":   {"POST", "/v1/door/hello", "", strings.NewReader("{"), 400},
		"endless":   {"POST", "/v1/door/hello", "", io.LimitReader(spaces{}, 2*door.MaxRequest), 400},
		"no caller": {"POST", "/v1/door/hello", "x", nil, 403},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, s.URL+tc.path, tc.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X", tc.header)
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%s: status %d, want %d", name, resp.StatusCode, tc.status)
		}
	}
}

type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// What is no host's door is not taken for one, nor is a redirect followed.
func TestHostileHosts(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"garbage":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"not found": http.NotFound,
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
		},
		"wrong code": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); io.WriteString(w, `{"code":"root"}`) },
		"endless":    func(w http.ResponseWriter, _ *http.Request) { io.CopyN(w, spaces{}, 2*door.MaxAnswer) },
	} {
		_, c := start(t, answer)
		var got door.Hello
		if err := c.Call(t.Context(), "hello", nil, &got); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "elsewhere") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for url, good := range map[string]bool{
		"https://host": true, "https://host:1/": true, "https://[::1]:1": true,
		"http://host": false, "host": false, "https://": false, "https://user:p@host": false, "https://host?x": false, "https://host:x": false,
	} {
		if _, err := NewClient(url, &tls.Config{}); (err == nil) != good {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A host whose certificate is of other roots is not asked.
func TestForeignHost(t *testing.T) {
	s, _ := start(t, Handler(books{}, nil))
	c, err := NewClient(s.URL, &tls.Config{RootCAs: x509.NewCertPool()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), "hello", nil, nil); err == nil {
		t.Error("a host of an unknown authority was asked")
	}
}

// slow answers when it is told to.
type slow struct{ begun, end chan struct{} }

func (s slow) Do(context.Context, door.Caller, string, json.RawMessage) (any, error) {
	s.begun <- struct{}{}
	<-s.end
	return nil, nil
}

// TestTooMany: an address that asks for too much at once is put off, and keeps nobody out.
func TestTooMany(t *testing.T) {
	s := slow{make(chan struct{}, mostRequests), make(chan struct{})}
	h := Handler(s, nil)
	ask := func(from string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path+"evidence", nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	var wg sync.WaitGroup
	fill := func(from string) {
		wg.Go(func() {
			if code := ask(from); code != http.StatusOK {
				t.Errorf("%s: status %d", from, code)
			}
		})
		<-s.begun
	}
	for i := range mostOfOne {
		fill(fmt.Sprintf("192.0.2.1:%d", 1000+i))
	}
	if code := ask("192.0.2.1:999"); code != http.StatusTooManyRequests {
		t.Errorf("one too many of an address: status %d", code)
	}
	for i := range mostRequests - mostOfOne {
		fill(fmt.Sprintf("[2001:db8:0:%d::1]:1", i/mostOfOne))
	}
	if code := ask("192.0.2.2:1"); code != http.StatusTooManyRequests {
		t.Errorf("one too many of all: status %d", code)
	}
	close(s.end)
	wg.Wait()
	if code := ask("192.0.2.1:999"); code != http.StatusOK {
		t.Errorf("when there is room again: status %d", code)
	}
}
