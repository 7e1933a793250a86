// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

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
