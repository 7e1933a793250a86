// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hang is when a test gives up.
const hang = time.Minute

// listenLocal listens on the loopback, or skips where the kernel has none.
func listenLocal(t *testing.T) *Listener {
	t.Helper()
	l, err := Listen(Addr{CIDLocal, PortAny})
	for _, missing := range []error{unix.EAFNOSUPPORT, unix.EADDRNOTAVAIL, unix.ENODEV} {
		if errors.Is(err, missing) {
			t.Skipf("the kernel has no loopback of vsock (module vsock_loopback): %v", err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLoopback(t *testing.T) {
	l := listenLocal(t)
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		if peer := c.(*Conn).Peer(); peer.CID != CIDLocal {
			t.Errorf("who connects is %v", peer)
		}
		_, err = io.Copy(c, c)
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	c, err := Dial(ctx, l.Addr().(Addr))
	if errors.Is(err, unix.ENODEV) {
		t.Skipf("the kernel has no loopback of vsock (module vsock_loopback): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.RemoteAddr() != l.Addr() {
		t.Errorf("connected to %v, want %v", c.RemoteAddr(), l.Addr())
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after its deadline: %v", err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Close ends an Accept that waits, and can come twice.
func TestCloseEndsAccept(t *testing.T) {
	l, err := Listen(Addr{CIDAny, PortAny})
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skipf("the kernel has no vsock: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	_, err := Dial(t.Context(), Addr{CIDLocal, PortAny - 1})
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Net != "vsock" || op.Addr.String() != "1:4294967294" {
		t.Errorf("a port where nobody listens: %v", err)
	}
}
