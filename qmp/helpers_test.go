// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

// deadline guards against hangs; no test expects to get near it.
const deadline = 60 * time.Second

// within returns a context that ends long after the test should have.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// dial starts a fake server and returns it with a connected client.
func dial(t testing.TB, opts ...qmp.Option) (*qmptest.Server, *qmp.Client) {
	t.Helper()
	srv := qmptest.Start(t)
	return srv, connect(t, srv, opts...)
}

func connect(t testing.TB, srv *qmptest.Server, opts ...qmp.Option) *qmp.Client {
	t.Helper()
	c, err := qmp.Dial(within(t), srv.Path(), opts...)
	if err != nil {
		t.Fatalf("Dial() = %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return c
}

// connectSocket is connect for tests that look at the socket itself.
func connectSocket(t testing.TB, srv *qmptest.Server) (*qmp.Client, *net.UnixConn) {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: srv.Path(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := qmp.New(within(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // always nil
	return c, conn
}

// command is shorthand for a command without arguments.
func command(name string) qmp.Command { return qmp.Command{Execute: name} }

func checkRefusal(t testing.TB, err error, want qmp.Error) {
	t.Helper()
	got, ok := errors.AsType[*qmp.Error](err)
	if !ok {
		t.Fatalf("got error %v, want a refusal", err)
	}
	if *got != want {
		t.Fatalf("got refusal %+v, want %+v", *got, want)
	}
}
