// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// FuzzSession plays a front-end: a stream of operations on a session that is
// fresh, introduced, or running a ring. Whatever it does, the session ends
// when the front-end hangs up, each started ring is stopped, and nothing
// leaks.
//
// An operation is: request, flags and descriptors, body length, body. The
// second byte is descriptors (low 4 bits), need_reply (0x10), kick the ring
// (0x20), raw (0x40: the body goes on the wire without a header).
func FuzzSession(f *testing.F) {
	seed := func(stage byte, ops ...[]byte) {
		b := []byte{stage}
		for _, op := range ops {
			b = append(b, op...)
		}
		f.Add(b)
	}
	op := func(r vhostuser.Request, how byte, body []byte) []byte {
		return append([]byte{byte(r), how, byte(len(body))}, body...)
	}
	body, _ := vhostusertest.MemTable(vhostusertest.Region{GPA: vhostusertest.GuestBase, Size: 1 << 20, User: vhostusertest.UserBase})
	seed(0, op(vhostuser.GetFeatures, 0, nil), op(vhostuser.SetMemTable, 1, body))
	seed(1, op(vhostuser.SetMemTable, 0x11, body), op(vhostuser.SetVringKick, 0x12, vhostusertest.U64(0)), op(vhostuser.SetVringEnable, 0x10, vhostusertest.State(0, 1)))
	seed(2, op(vhostuser.GetVringBase, 0x20, vhostusertest.State(0, 0)), op(vhostuser.SetStatus, 0, vhostusertest.U64(0)))
	seed(2, op(vhostuser.SetVringCall, 0x11, vhostusertest.U64(0x100)), op(vhostuser.SetMemTable, 0x31, body))
	seed(2, op(vhostuser.GetInflightFD, 0, append(make([]byte, 16), 1, 0, 64, 0)), op(vhostuser.SetLogBase, 1, make([]byte, 16)))
	seed(1, op(0, 0x40, []byte{1, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0}))

	f.Fuzz(func(t *testing.T, b []byte) {
		dev := &echo{}
		srv, err := vhostuser.NewServer(vhostuser.Config{Device: dev, StopGrace: time.Millisecond})
		must(t, err)
		socks := pair(t)
		done := make(chan error, 1)
		go func() { done <- srv.ServeConn(context.Background(), socks[0]) }()
		before := openFDs(t)

		fe, err := vhostusertest.Open(socks[1], vhostusertest.Options{MemSize: 64 << 10, QueueSize: 8})
		must(t, err)
		if len(b) > 0 {
			play(t, fe, b[0]%3, b[1:])
		}
		fe.Close()
		select {
		case <-done: // any error is fine
		case <-time.After(hangGuard):
			t.Fatal("the session does not end")
		}
		if starts, stops := dev.starts.Load(), dev.stops.Load(); starts != stops {
			t.Errorf("%d starts, %d stops", starts, stops)
		}
		// The two ends of the connection are closed since; nothing is left.
		if after := openFDs(t); after > before-2 {
			t.Errorf("descriptors: %d, then %d", before-2, after)
		}
	})
}

// play brings the session to a stage and then runs the operations in b.
func play(t *testing.T, fe *vhostusertest.Frontend, stage byte, b []byte) {
	if stage > 0 {
		must(t, fe.Realize())
	}
	if stage > 1 {
		must(t, fe.Start())
		_, err := fe.Driver().Add([][]byte{{1, 2, 3}}, []int{8}, false)
		must(t, err)
	}
	go func() { _, _ = io.Copy(io.Discard, fe.Sock) }() // so that replies never block the session
	fds := []int{fe.Mem.FD, fe.Kick, fe.Call, fe.Err}
	for len(b) >= 3 {
		req, how, n := vhostuser.Request(b[0]), b[1], min(int(b[2]), len(b)-3)
		body := b[3 : 3+n]
		b = b[3+n:]
		var pass []int
		for i := range how & 0xf {
			pass = append(pass, fds[(int(i)+int(req))%len(fds)])
		}
		msg := vhostusertest.Encode(req, vhostusertest.Version|uint32(how&0x10)>>1, body)
		if how&0x40 != 0 {
			msg = body
		}
		if how&0x20 != 0 {
			vhostusertest.Signal(fe.Kick)
		}
		if len(msg) > 0 && fe.WriteRaw(msg, pass...) != nil {
			return // hung up on us
		}
	}
	// What was sent is served before the hang-up, except what is cut short.
	_ = unix.Shutdown(sockFD(fe), unix.SHUT_WR)
}

func sockFD(fe *vhostusertest.Frontend) (n int) {
	raw, err := fe.Sock.SyscallConn()
	if err != nil {
		return -1
	}
	_ = raw.Control(func(fd uintptr) { n = int(fd) })
	return n
}
