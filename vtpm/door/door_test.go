// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCall(t *testing.T) {
	calls := make(chan Caller, 1)
	c := NewClient(serve(t, echo{calls}))
	defer c.Close()
	want := EvidenceRequest{Nonce: []byte("nonce"), PCRMap: "map", VM: json.RawMessage(`{"a":"<b>"}`)}
	var got EvidenceRequest
	if err := c.Call(within(t), "echo", want, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got.VM, new(any)); err != nil || string(got.Nonce) != "nonce" {
		t.Errorf("echo of %+v is %+v", want, got)
	}
	if who := <-calls; who != (Caller{"vm-1", -1}) {
		t.Errorf("the handler was told %+v", who)
	}
	var nothing any = 1
	if err := c.Call(within(t), "nothing", nil, &nothing); err != nil || nothing != nil {
		t.Errorf("nothing: %v, %v", nothing, err)
	}
}

func TestErrorsReachTheCaller(t *testing.T) {
	c := NewClient(serve(t, echo{}))
	defer c.Close()
	for op, want := range map[string]Error{
		"denied":  {"denied", CodeDenied, "not you: unexpected EOF", nil},
		"inside":  {"inside", CodeInternal, "the host failed; its log says why", nil},
		"gone":    {"gone", CodeUnavailable, "the host gave up waiting", nil},
		"large":   {"large", CodeInternal, "the host failed; its log says why", nil},
		"mad":     {"mad", CodeInternal, "the host failed; its log says why", nil},
		"unknown": {"unknown", CodeNotFound, `no operation is called "unknown"`, nil},
	} {
		err := c.Call(within(t), op, nil, nil)
		if got, ok := errors.AsType[*Error](err); !ok || got.Op != want.Op || got.Code != want.Code || got.Message != want.Message {
			t.Errorf("%s: %v, want %v", op, err, &want)
		}
	}
	if err := c.Call(within(t), "echo", bytes.Repeat([]byte("x"), MaxRequest), nil); err == nil {
		t.Error("a request that is too large was sent")
	}
	if err := c.Call(within(t), "echo", 1, nil); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestErrorf(t *testing.T) {
	err := Errorf(CodeBusy, "try again: %w", io.EOF)
	if !errors.Is(err, io.EOF) || Code(err) != CodeBusy || Message(err) != "try again: EOF" {
		t.Errorf("%v: code %s, message %q", err, Code(err), Message(err))
	}
	hostile := &Error{Op: "x", Code: "root", Message: "a\x1b[2Jb\n\xffc" + strings.Repeat("d", 2*maxMessage)}
	if Code(hostile) != CodeInternal {
		t.Errorf("code %s", Code(hostile))
	}
	if m := Message(hostile); !strings.HasPrefix(m, "a [2Jb cd") || len(m) > maxMessage {
		t.Errorf("message %.20q of %d bytes", m, len(m))
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for body, good := range map[string]bool{
		``: true, `{}`: true, `{"id":"a"}`: true, ` {"secret":"AA=="} `: true,
		`{"id":1}`: false, `{"more":1}`: false, `{}{}`: false, `{} x`: false, `[`: false, `7`: false,
	} {
		var p Proof
		if err := Decode(json.RawMessage(body), &p); (err == nil) != good {
			t.Errorf("%s: %v", body, err)
		} else if err != nil && Code(err) != CodeBadRequest {
			t.Errorf("%s: code %s", body, Code(err))
		}
	}
}

// Calls of many goroutines take turns, and each gets its own answer.
func TestCallsTakeTurns(t *testing.T) {
	c := NewClient(serve(t, echo{}))
	defer c.Close()
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			var got int
			if err := c.Call(within(t), "echo", n, &got); err != nil || got != n {
				t.Errorf("echo of %d: %d, %v", n, got, err)
			}
		})
	}
	wg.Wait()
}

// A context that ends takes the client with it, and a call that waits is ended by
// its own context only.
func TestContextEndsCall(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	c := NewClient(here)
	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan error)
	go func() { ends <- c.Call(ctx, "echo", nil, nil) }()
	if _, err := newLines(there, MaxRequest).next(); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithCancel(t.Context())
	go func() { ends <- c.Call(short, "echo", nil, nil) }()
	stop()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("the call that waits: %v", err)
	}
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("the call under way: %v", err)
	}
	if err := c.Call(t.Context(), "echo", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after that: %v", err)
	}
}

func TestCloseEndsCall(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	c := NewClient(here)
	ends := make(chan error)
	go func() { ends <- c.Call(within(t), "echo", nil, nil) }()
	if _, err := newLines(there, MaxRequest).next(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-ends; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// What the client sends and takes, byte for byte.
func TestOnTheWire(t *testing.T) {
	here, there := net.Pipe()
	c := NewClient(here)
	defer c.Close()
	go func() {
		defer there.Close()
		b := make([]byte, 256)
		n, _ := there.Read(b)
		id := b[len("\n{\"id\":\""):][:26]
		if want := "\n{\"id\":\"" + string(id) + "\",\"op\":\"vm\",\"body\":{\"name\":\"a\"}}\n"; string(b[:n]) != want {
			t.Errorf("request %q, want %q", b[:n], want)
		}
		there.Write([]byte("half an answer\n{\"id\":\"other\",\"result\":1}\n\n{\"id\":\"" + string(id) + "\"}\n" +
			"{\"id\":\"" + string(id) + "\",\"result\":[\"b\"]}\n"))
	}()
	var got []string
	if err := c.Call(within(t), OpVM, VMRequest{"a"}, &got); err != nil || !slices.Equal(got, []string{"b"}) {
		t.Errorf("%v, %v", got, err)
	}
}

// The end of the stream and of the context end Serve well, another error doesn't.
func TestServeEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want error
	}{
		"end": {io.EOF, nil}, "closed": {net.ErrClosed, nil}, "broken": {io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
	} {
		if err := Serve(t.Context(), &broken{err: tc.err}, Caller{}, echo{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	here, there := net.Pipe()
	defer here.Close()
	done := make(chan error)
	go func() { done <- Serve(ctx, there, Caller{}, echo{}) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve after its context: %v", err)
	}
}

type broken struct {
	bytes.Buffer
	err error
}

func (b *broken) Read([]byte) (int, error) { return 0, b.err }
func (b *broken) Close() error             { return nil }

func TestTypesAreAsDocumented(t *testing.T) {
	for want, v := range map[string]any{
		`{"version":1,"vm":"a"}`: Hello{Version, "a"},
		`{"handle":2164326401,"certificate":"AQ==","chain":["Ag=="]}`:                 EK{0x81010001, []byte{1}, [][]byte{{2}}},
		`{"name":"a","ek-certificate":"AQ==","ek-chain":["Ag=="],"ak-public":"Aw=="}`: EnrolRequest{"a", []byte{1}, [][]byte{{2}}, []byte{3}, ""},
		`{"id":"a","blob":"AQ==","secret":"Ag=="}`:                                    Challenge{"a", []byte{1}, []byte{2}},
		`{"id":"a","secret":"AQ=="}`:                                                  Proof{"a", []byte{1}},
		`{"certificate":"a","chain":"b"}`:                                             Certified{"a", "b"},
		`{"nonce":"AQ==","vm":{}}`:                                                    EvidenceRequest{Nonce: []byte{1}, VM: json.RawMessage("{}")},
		`{"banks":{"sha1":["00"]}}`:                                                   PCRs{map[string][]string{"sha1": {"00"}}},
	} {
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, string(got)); d != "" {
			t.Errorf("%T:\n%s", v, d)
		}
	}
}
