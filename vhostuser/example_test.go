// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// A device is served on a socket; here the front-end is the fake one, with
// QEMU it is "-chardev socket,path=...".
func ExampleServer_Serve() {
	dir, err := os.MkdirTemp("", "vu")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "device.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		panic(err)
	}
	defer ln.Close()
	srv, err := vhostuser.NewServer(vhostuser.Config{Device: &echo{}})
	if err != nil {
		panic(err)
	}
	defer srv.Close()
	go func() { _ = srv.Serve(context.Background(), ln) }()

	guest, err := vhostusertest.Dial(path, vhostusertest.Options{EventIdx: true})
	if err != nil {
		panic(err)
	}
	defer guest.Close()
	answer, err := guest.Exchange([]byte("hello, device"), 64)
	fmt.Printf("%s, %v\n", answer, err)
	// Output: hello, device, <nil>
}
