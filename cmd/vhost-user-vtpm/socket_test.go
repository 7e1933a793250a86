// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInherit(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	e, err := inherit(pair[0])
	if err != nil || e.conn == nil || e.listener != nil {
		t.Errorf("inherit(connected) = %+v, %v", e, err)
	}
	e.close()

	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	e, err = inherit(fd)
	if err != nil || e.listener == nil || e.conn != nil {
		t.Errorf("inherit(listening) = %+v, %v", e, err)
	}
	e.close()

	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if e, err := inherit(null); err == nil {
		e.close()
		t.Error("inherit took a file that is no socket")
	}
}
