// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// waiter does operations that end when their context does, or when they are told to.
type waiter struct{ begun, end chan struct{} }

func newWaiter() waiter { return waiter{make(chan struct{}, 99), make(chan struct{})} }

func (w waiter) Do(ctx context.Context, _ Caller, _ string, body json.RawMessage) (any, error) {
	w.begun <- struct{}{}
	select {
	case <-w.end:
		return body, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sockets gives a connection by a UNIX socket.
func sockets(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return here, there
}

// pipes gives a channel of two pipes, as a serial port or QEMU's "pipe" has.
func pipes(t *testing.T) (here, there io.ReadWriteCloser) {
	t.Helper()
	r1, w1, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return duplex{r1, w2}, duplex{r2, w1}
}

type duplex struct{ r, w *os.File }

func (d duplex) Read(b []byte) (int, error)  { return d.r.Read(b) }
func (d duplex) Write(b []byte) (int, error) { return d.w.Write(b) }
func (d duplex) Close() error                { return errors.Join(d.r.Close(), d.w.Close()) }

// TestCallerGoes: an operation ends when its caller has gone, and Serve with it; what the
// caller has asked for meanwhile is not begun.
func TestCallerGoes(t *testing.T) {
	for name, connect := range map[string]func() (io.ReadWriteCloser, io.ReadWriteCloser){
		"socket": func() (io.ReadWriteCloser, io.ReadWriteCloser) { return sockets(t) },
		"pipes":  func() (io.ReadWriteCloser, io.ReadWriteCloser) { return pipes(t) },
	} {
		for _, ask := range []string{"\n{\"id\":\"a\",\"op\":\"wait\"}\n", "\n{\"id\":\"a\",\"op\":\"wait\"}\nhalf a mess"} {
			here, there := connect()
			w, done := newWaiter(), make(chan error, 1)
			go func() { done <- Serve(t.Context(), there, Caller{}, w) }()
			if _, err := io.WriteString(here, ask); err != nil {
				t.Fatal(err)
			}
			<-w.begun
			here.Close()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			case <-within(t).Done():
				t.Fatalf("%s: an operation goes on for nobody", name)
			}
			if len(w.begun) > 0 {
				t.Errorf("%s: an operation was begun for nobody", name)
			}
		}
	}
}

// TestMuchIsAsked: what waits is bounded, however much is sent.
func TestMuchIsAsked(t *testing.T) {
	for _, tc := range []struct{ body, most int }{{0, 1 << 20}, {MaxRequest / 4, 4 * MaxRequest}} {
		here, there := sockets(t)
		w, ctx := newWaiter(), within(t)
		go Serve(ctx, there, Caller{}, w)
		line, err := ask("a", "wait", make([]byte, tc.body))
		if err != nil {
			t.Fatal(err)
		}
		here.SetWriteDeadline(time.Now().Add(time.Second / 2))
		n, err := here.Write(bytes.Repeat(line, 10*MaxRequest/len(line)))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n > tc.most {
			t.Errorf("bodies of %d bytes: %d bytes were taken while an operation is under way, %v", tc.body, n, err)
		}
		here.Close()
	}
}

// TestNothingIsLeft: nothing is left behind by a caller that goes at any point of a
// conversation, or by a context that ends there.
func TestNothingIsLeft(t *testing.T) {
	const asked = "\n{\"id\":\"a\",\"op\":\"x\"}\n\n{\"id\":\"b\",\"op\":\"x\"}\n\n{\"id\":\"c\",\"op\":\"x\"}\n"
	for n := range len(asked) + 1 {
		for _, cancels := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) { // which fails if there are goroutines at the end
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				here, there := net.Pipe()
				defer here.Close()
				done := make(chan error, 1)
				go func() { done <- Serve(ctx, there, Caller{}, newWaiter()) }()
				go here.Write([]byte(asked[:n]))
				synctest.Wait()
				if cancels {
					cancel()
				} else {
					here.Close()
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestAskedMeanwhile: what is asked while an operation is under way is answered behind it,
// in order and whole, in whatever pieces it came.
func TestAskedMeanwhile(t *testing.T) {
	const requests = 20
	here, there := sockets(t)
	defer here.Close()
	w := newWaiter()
	go Serve(t.Context(), oneByte{iotest.OneByteReader(there), there}, Caller{}, w)
	var sent []byte
	for i := range requests {
		line, err := ask("id"+strconv.Itoa(i), "wait", bytes.Repeat([]byte{byte(i)}, 100*i))
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, line...)
	}
	if _, err := here.Write(sent); err != nil {
		t.Fatal(err)
	}
	<-w.begun
	close(w.end)
	in := newLines(here, MaxAnswer)
	for i := range requests {
		line, err := in.next()
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseAnswer(line)
		var got []byte
		if err != nil || json.Unmarshal(a.Result, &got) != nil || a.ID != "id"+strconv.Itoa(i) || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, 100*i)) {
			t.Fatalf("answer %d: %.60s, %v", i, line, err)
		}
	}
}

type oneByte struct {
	io.Reader
	io.WriteCloser
}
