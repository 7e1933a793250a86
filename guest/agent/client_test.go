// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // hang guard
	t.Cleanup(cancel)
	return ctx
}

func fixed(v any) Handler {
	return func(context.Context, json.RawMessage) (any, error) { return v, nil }
}

func echo(_ context.Context, args json.RawMessage) (any, error) { return args, nil }

func broken(context.Context, json.RawMessage) (any, error) { return nil, errors.New("went wrong") }

// wire is a client and the guest's end of its port.
func wire(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	host, guest := net.Pipe()
	c := NewClient(host, nil)
	t.Cleanup(func() {
		c.Close()
		guest.Close()
	})
	return c, guest
}

// boot serves on the guest's end until the returned function is called. It
// ends with the stream, like an agent whose machine is reset.
func boot(t *testing.T, conn io.ReadWriter, session string, handlers map[string]Handler) (reset func()) {
	t.Helper()
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, conn)
		w.CloseWithError(err)
	}()
	port := struct {
		io.Reader
		io.Writer
	}{r, conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := Server{Hello: Hello{Session: session, BootID: "boot of " + session, Kernel: "k"}, Handlers: handlers}
		_ = s.Serve(context.Background(), port) // ends by its stream
	}()
	return func() {
		r.Close()
		<-done
	}
}

func TestCall(t *testing.T) {
	c, guest := wire(t)
	boot(t, guest, "one", map[string]Handler{"echo": echo, "broken": broken, OpRun: fixed(Result{ExitCode: 3, Stderr: []byte("no\n")})})
	ctx := testContext(t)

	hello, err := c.WaitHello(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := Hello{Session: "one", BootID: "boot of one", Kernel: "k", Boot: 1}
	if diff := cmp.Diff(want, hello); diff != "" {
		t.Error(diff)
	}
	var got map[string]int
	if err := c.Call(ctx, "echo", map[string]int{"a": 7}, &got); err != nil || got["a"] != 7 {
		t.Errorf("Call(echo) = %v, %v", got, err)
	}
	r, err := c.Run(ctx, "false")
	if err != nil || r.ExitCode != 3 || r.Err() == nil || !strings.Contains(r.Err().Error(), "no") {
		t.Errorf("Run() = %+v, %v", r, err)
	}
	for op, message := range map[string]string{"broken": "went wrong", "nonsense": "no such operation"} {
		err := c.Call(ctx, op, nil, nil)
		if e, ok := errors.AsType[*OpError](err); !ok || e.Op != op || e.Message != message {
			t.Errorf("Call(%s) = %v, want %q", op, err, message)
		}
	}
	// A result that does not fit the caller's type is an error, not a panic.
	var number int
	if err := c.Call(ctx, "echo", "text", &number); err == nil {
		t.Error("Call with a wrong result type succeeded")
	}
}

func TestCallsRunAtTheSameTime(t *testing.T) {
	c, guest := wire(t)
	release := make(chan struct{})
	boot(t, guest, "one", map[string]Handler{
		"wait": func(context.Context, json.RawMessage) (any, error) { <-release; return nil, nil },
		"echo": echo,
	})
	ctx := testContext(t)
	waited := make(chan error)
	go func() { waited <- c.Call(ctx, "wait", nil, nil) }()
	if err := c.Call(ctx, "echo", 1, nil); err != nil {
		t.Errorf("Call beside a waiting one = %v", err)
	}
	close(release)
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

func TestTooManyOperations(t *testing.T) {
	c, guest := wire(t)
	release, started := make(chan struct{}), make(chan struct{})
	boot(t, guest, "one", map[string]Handler{
		"wait": func(context.Context, json.RawMessage) (any, error) { started <- struct{}{}; <-release; return nil, nil },
	})
	ctx := testContext(t)
	results := make(chan error)
	for range maxRunning {
		go func() { results <- c.Call(ctx, "wait", nil, nil) }()
		<-started
	}
	err := c.Call(ctx, "wait", nil, nil)
	if _, ok := errors.AsType[*OpError](err); !ok {
		t.Errorf("Call beyond the limit = %v, want an OpError", err)
	}
	close(release)
	for range maxRunning {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestRestart(t *testing.T) {
	c, guest := wire(t)
	ctx := testContext(t)
	never, started := make(chan struct{}), make(chan struct{})
	defer close(never)
	reader, writer := io.Pipe() // what the first life of the guest says
	go io.Copy(guest, reader)
	go func() {
		s := Server{Hello: Hello{Session: "one"}, Handlers: map[string]Handler{
			"hang": func(context.Context, json.RawMessage) (any, error) { close(started); <-never; return nil, nil },
		}}
		_ = s.Serve(context.Background(), struct {
			io.Reader
			io.Writer
		}{guest, writer})
	}()
	hello, err := c.WaitHello(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pending := make(chan error)
	go func() { pending <- c.Call(ctx, "hang", nil, nil) }()
	<-started
	// The machine is reset in the middle of a line, and comes up again.
	fmt.Fprintf(guest, `{"session":"one","id":1,"resu`)
	fmt.Fprintf(guest, "\n{\"hello\":{\"session\":\"two\"}}\n")
	if err := <-pending; !errors.Is(err, ErrRestarted) {
		t.Errorf("call in progress over a reset = %v, want ErrRestarted", err)
	}
	again, err := c.WaitBoot(ctx, hello)
	if err != nil || again.Session != "two" || again.Boot != 2 {
		t.Errorf("WaitBoot() = %+v, %v", again, err)
	}
}

// A request that was still in the port when the machine was reset must not be
// executed by the next life.
func TestStaleRequestIsNotExecuted(t *testing.T) {
	host, guest := net.Pipe()
	defer host.Close()
	executed := make(chan string, 2)
	note := func(_ context.Context, args json.RawMessage) (any, error) {
		executed <- string(args)
		return nil, nil
	}
	boot(t, guest, "two", map[string]Handler{"note": note})
	go io.Copy(io.Discard, host)
	for _, session := range []string{"one", "two"} {
		fmt.Fprintf(host, "{\"session\":%q,\"id\":1,\"op\":\"note\",\"args\":%q}\n", session, session)
	}
	if got := <-executed; got != `"two"` {
		t.Errorf("executed the request for %s", got)
	}
}

// Nothing that a guest writes may end the client or confuse it.
func TestHostileGuest(t *testing.T) {
	c, guest := wire(t)
	ctx := testContext(t)
	go io.Copy(io.Discard, guest) // requests
	noise := []string{
		"", "null", "[]", "{", "{}", `{"hello":{}}`, `{"hello":null,"id":1}`,
		`{"session":"s","id":1,"result":{"exit":0}}`, "\x00\x01\x02\xff",
		strings.Repeat("{", 10_000), strings.Repeat("x", MaxLine+100),
		`{"id":18446744073709551616,"session":"s"}`,
	}
	for _, line := range noise {
		if _, err := io.WriteString(guest, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(guest, `{"hello":{"session":"s"}}`)
	hello, err := c.WaitHello(ctx)
	if err != nil || hello.Boot != 1 {
		t.Fatalf("WaitHello() = %+v, %v", hello, err)
	}
	// Answers to requests that were never made.
	for id := range 100 {
		fmt.Fprintf(guest, "{\"session\":\"s\",\"id\":%d,\"result\":{}}\n", id+1)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := c.Call(short, "x", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call() = %v, want its own deadline", err)
	}
}

func TestServerSkipsNoise(t *testing.T) {
	host, guest := net.Pipe()
	defer host.Close()
	boot(t, guest, "s", map[string]Handler{"echo": echo})
	out := newLineReader(host)
	go io.WriteString(host, "\x00noise\n"+strings.Repeat("y", MaxLine+5)+"\n"+
		`{"session":"s","id":1,"op":"echo","args":`+"\n"+
		`{"session":"s","id":2,"op":"echo","args":5}`+"\n")
	for {
		line, err := out.next()
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseReply(line)
		if err != nil || r.Hello != nil {
			continue
		}
		if r.ID != 2 || string(r.Result) != "5" {
			t.Errorf("reply %+v, want 5 for request 2", r)
		}
		return
	}
}

func TestResultTooLong(t *testing.T) {
	c, guest := wire(t)
	boot(t, guest, "s", map[string]Handler{"big": fixed(strings.Repeat("x", MaxLine))})
	err := c.Call(testContext(t), "big", nil, nil)
	if e, ok := errors.AsType[*OpError](err); !ok || e.Message != "result too long" {
		t.Errorf("Call() = %v, want an OpError about the length", err)
	}
}

func TestClose(t *testing.T) {
	c, guest := wire(t)
	never, started := make(chan struct{}), make(chan struct{})
	defer close(never)
	boot(t, guest, "s", map[string]Handler{
		"hang": func(context.Context, json.RawMessage) (any, error) { close(started); <-never; return nil, nil },
	})
	ctx := testContext(t)
	pending := make(chan error)
	go func() { pending <- c.Call(ctx, "hang", nil, nil) }()
	<-started
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-pending; !errors.Is(err, ErrClosed) {
		t.Errorf("call in progress = %v, want ErrClosed", err)
	}
	if err := c.Call(ctx, "hang", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Call after Close = %v, want ErrClosed", err)
	}
	<-c.Done()
}

func TestReboot(t *testing.T) {
	c, guest := wire(t)
	ctx := testContext(t)
	var reset func()
	down := make(chan struct{})
	reset = boot(t, guest, "one", map[string]Handler{
		OpReboot: func(context.Context, json.RawMessage) (any, error) { close(down); return nil, nil },
	})
	go func() {
		<-down
		reset()
		fmt.Fprint(guest, "\n{\"hello\":{\"session\":\"two\"}}\n")
	}()
	hello, err := c.Reboot(ctx)
	if err != nil || hello.Session != "two" || hello.Boot != 2 {
		t.Errorf("Reboot() = %+v, %v", hello, err)
	}
}

func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	if _, err := Dial(path, nil); err == nil {
		t.Fatal("Dial of nothing succeeded")
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := Dial(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	guest, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	boot(t, guest, "s", nil)
	if _, err := c.WaitHello(testContext(t)); err != nil {
		t.Error(err)
	}
}
