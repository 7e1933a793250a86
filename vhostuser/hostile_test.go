// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"io"
	"math"
	"testing"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// outcome is how the back-end takes a hostile message.
type outcome int

const (
	refused outcome = iota // answers a failure, the session goes on
	hungUp                 // ends the session
)

// hostile is one message that no honest front-end sends, after Realize.
type hostile struct {
	name string
	want outcome
	req  vhostuser.Request
	body []byte
	fds  func(f *vhostusertest.Frontend) []int // nil: none
}

func mem(f *vhostusertest.Frontend) []int  { return []int{f.Mem.FD} }
func kick(f *vhostusertest.Frontend) []int { return []int{f.Kick} }

// times passes the memory's descriptor n times.
func times(n int) func(*vhostusertest.Frontend) []int {
	return func(f *vhostusertest.Frontend) []int {
		fds := make([]int, n)
		for i := range fds {
			fds[i] = f.Mem.FD
		}
		return fds
	}
}

func table(regions ...vhostusertest.Region) []byte {
	body, _ := vhostusertest.MemTable(regions...)
	return body
}

const page = 4096

func hostileMessages() []hostile {
	region := func(gpa, size, user, off uint64) vhostusertest.Region {
		return vhostusertest.Region{GPA: gpa, Size: size, User: user, Offset: off}
	}
	state, u64 := vhostusertest.State, vhostusertest.U64
	return []hostile{
		{name: "unknown request", req: 99},
		{name: "unknown request zero", req: 0},
		{name: "postcopy is not served", req: 28},

		// "The size and ordering of the fds matches the number and ordering of memory regions."
		{name: "table without descriptors", req: vhostuser.SetMemTable, body: table(region(0, page, page, 0))},
		{name: "table with too many descriptors", req: vhostuser.SetMemTable, body: table(region(0, page, page, 0)), fds: times(2)},
		{name: "table with too few descriptors", req: vhostuser.SetMemTable, body: table(region(0, page, page, 0), region(page, page, page*4, 0)), fds: mem},
		{name: "table cut short", req: vhostuser.SetMemTable, body: table(region(0, page, page, 0))[:39], fds: mem},
		{name: "table with a count beyond its array", req: vhostuser.SetMemTable, body: append(state(2, 0), make([]byte, 32)...), fds: mem},
		{name: "table with a huge count", req: vhostuser.SetMemTable, body: append(state(math.MaxUint32, 0), make([]byte, 32)...), fds: mem},
		{name: "empty region", req: vhostuser.SetMemTable, body: table(region(0, 0, page, 0)), fds: mem},
		{name: "regions overlap in guest addresses", req: vhostuser.SetMemTable, body: table(region(0, 2*page, page, 0), region(page, page, 8*page, 0)), fds: times(2)},
		{name: "regions overlap in user addresses", req: vhostuser.SetMemTable, body: table(region(0, 2*page, page, 0), region(8*page, page, 2*page, 0)), fds: times(2)},
		{name: "guest address overflows", req: vhostuser.SetMemTable, body: table(region(math.MaxUint64-page+2, page, page, 0)), fds: mem},
		{name: "user address overflows", req: vhostuser.SetMemTable, body: table(region(0, page, math.MaxUint64-page+2, 0)), fds: mem},
		{name: "offset overflows", req: vhostuser.SetMemTable, body: table(region(0, page, page, math.MaxUint64-page+1)), fds: mem},
		{name: "offset is negative as off_t", req: vhostuser.SetMemTable, body: table(region(0, page, page, 1<<63)), fds: mem},
		{name: "file shorter than region", req: vhostuser.SetMemTable, body: table(region(0, 1<<40, page, 0)), fds: mem},
		{name: "region ends behind file", req: vhostuser.SetMemTable, body: table(region(0, page, page, 1<<20-page+1)), fds: mem},
		{name: "memory is an eventfd", req: vhostuser.SetMemTable, body: table(region(0, page, page, 0)), fds: kick},
		{name: "slot is empty", req: vhostuser.AddMemReg, body: vhostusertest.SingleRegion(region(0, 0, 0, 0)), fds: mem},
		{name: "slot without descriptor", req: vhostuser.AddMemReg, body: vhostusertest.SingleRegion(region(0, page, page, 0))},
		{name: "removal of no slot", req: vhostuser.RemMemReg, body: vhostusertest.SingleRegion(region(0, page, page, 0))},

		{name: "size of a queue that is not there", req: vhostuser.SetVringNum, body: state(1, 64)},
		{name: "base of a queue that is not there", req: vhostuser.SetVringBase, body: state(math.MaxUint32, 0)},
		{name: "address of a queue that is not there", req: vhostuser.SetVringAddr, body: vhostusertest.Addr(1, 0, 0, 0, 0, 0)},
		{name: "unknown vring flag", req: vhostuser.SetVringAddr, body: vhostusertest.Addr(0, 2, 0, 0, 0, 0)},
		{name: "vring address cut short", req: vhostuser.SetVringAddr, body: make([]byte, 39)},
		{name: "enable of a queue that is not there", req: vhostuser.SetVringEnable, body: state(1, 1)},
		{name: "enable value 2", req: vhostuser.SetVringEnable, body: state(0, 2)},
		{name: "kick of a queue that is not there", req: vhostuser.SetVringKick, body: u64(1), fds: kick},
		{name: "kick with reserved bits", req: vhostuser.SetVringKick, body: u64(0x200), fds: kick},
		{name: "kick without descriptor", req: vhostuser.SetVringKick, body: u64(0)},
		{name: "kick by polling", req: vhostuser.SetVringKick, body: u64(vhostusertest.NoFD)},
		{name: "kick with descriptor and flag against it", req: vhostuser.SetVringKick, body: u64(vhostusertest.NoFD), fds: kick},
		{name: "kick is a file", req: vhostuser.SetVringKick, body: u64(0), fds: mem},
		{name: "call is a file", req: vhostuser.SetVringCall, body: u64(0), fds: mem},
		{name: "call with two descriptors", req: vhostuser.SetVringCall, body: u64(0), fds: times(2)},
		{name: "kick is a socket", req: vhostuser.SetVringKick, body: u64(0), fds: func(f *vhostusertest.Frontend) []int { return []int{f.BackendEnd()} }},

		{name: "features not offered", req: vhostuser.SetFeatures, body: u64(1 << 50)},
		{name: "features cut short", req: vhostuser.SetFeatures, body: make([]byte, 4)},
		{name: "protocol features not offered", req: vhostuser.SetProtocolFeatures, body: u64(1 << 14)},
		{name: "owner with a payload", req: vhostuser.SetOwner, body: u64(0)},
		{name: "owner with a descriptor", req: vhostuser.SetOwner, fds: mem},
		{name: "status of 9 bits", req: vhostuser.SetStatus, body: u64(0x100)},
		{name: "channel is not a socket", req: vhostuser.SetBackendReqFD, fds: mem},
		{name: "channel is missing", req: vhostuser.SetBackendReqFD},
		{name: "config write out of range", req: vhostuser.SetConfig, body: vhostusertest.ConfigAccess(250, 0, make([]byte, 8))},
		{name: "config write with offset overflow", req: vhostuser.SetConfig, body: vhostusertest.ConfigAccess(math.MaxUint32, 0, make([]byte, 8))},
		{name: "config write with unknown flags", req: vhostuser.SetConfig, body: vhostusertest.ConfigAccess(4, 7, make([]byte, 4))},
		{name: "config write to a read-only field", req: vhostuser.SetConfig, body: vhostusertest.ConfigAccess(0, 0, make([]byte, 4))},
		{name: "config write of another size than said", req: vhostuser.SetConfig, body: append(vhostusertest.ConfigAccess(4, 0, make([]byte, 4)), 0)},
		{name: "in-flight area for no queues", req: vhostuser.SetInflightFD, body: make([]byte, 20), fds: mem},
		{name: "in-flight area is missing", req: vhostuser.SetInflightFD, body: make([]byte, 20)},

		// Own replies that cannot say "failed" end the session instead.
		{name: "base of a queue that is not there, asked", want: hungUp, req: vhostuser.GetVringBase, body: state(7, 0)},
		{name: "question with a payload", want: hungUp, req: vhostuser.GetFeatures, body: u64(0)},
		{name: "question with a descriptor", want: hungUp, req: vhostuser.GetStatus, fds: mem},
		{name: "more descriptors than any message has", want: hungUp, req: vhostuser.SetMemTable, body: table(region(0, page, page, 0)), fds: times(9)},
		{name: "very many descriptors", want: hungUp, req: vhostuser.SetOwner, fds: times(200)},
	}
}

// realized opens a front-end that the back-end has met.
func realized(t testing.TB, path string, o vhostusertest.Options) *vhostusertest.Frontend {
	t.Helper()
	o.MemSlots = true
	f := open(t, path, o)
	if err := f.Realize(); err != nil {
		t.Fatal(err)
	}
	return f
}

// eachHostileMessage gives every message a session of its own, and checks that
// no descriptor stays behind.
func eachHostileMessage(t *testing.T, try func(t *testing.T, f *vhostusertest.Frontend, h hostile, fds []int)) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	dial(t, path, vhostusertest.Options{}).Close() // so that lazy descriptors exist
	for _, h := range hostileMessages() {
		t.Run(h.name, func(t *testing.T) {
			checkLeaks(t, func() {
				f := realized(t, path, vhostusertest.Options{})
				defer f.Close()
				var fds []int
				if h.fds != nil {
					fds = h.fds(f)
				}
				try(t, f, h, fds)
			})
		})
	}
}

func TestHostileMessages(t *testing.T) {
	eachHostileMessage(t, func(t *testing.T, f *vhostusertest.Frontend, h hostile, fds []int) {
		err := f.Ack(h.req, h.body, fds...)
		switch {
		case h.want == refused && !errors.Is(err, vhostusertest.ErrRefused):
			t.Errorf("got %v, want a refusal", err)
		case h.want == hungUp && !errors.Is(err, io.EOF):
			t.Errorf("got %v, want the session to end", err)
		}
		if h.want == refused {
			if err := f.Start(); err != nil {
				t.Fatalf("honest start after the refusal: %v", err)
			}
			exchange(t, f, []byte("still alive"))
		}
	})
}

// TestHostileMessagesWithoutAck: with no way to answer, the session ends.
func TestHostileMessagesWithoutAck(t *testing.T) {
	eachHostileMessage(t, func(t *testing.T, f *vhostusertest.Frontend, h hostile, fds []int) {
		if err := f.Send(h.req, vhostusertest.Version, h.body, fds...); err != nil {
			t.Fatal(err)
		}
		if m, err := f.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("Recv() = %v, %v, want EOF", m, err)
		}
	})
}

func TestHostileHeaders(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	dial(t, path, vhostusertest.Options{}).Close()
	head := func(req, flags, size uint32) []byte {
		return append(vhostusertest.State(req, flags), vhostusertest.State(size, 0)[:4]...)
	}
	for name, raw := range map[string][]byte{
		"reply flag":        head(7, 5, 0), // without the flag SET_LOG_FD would be fine
		"version 0":         head(1, 0, 0),
		"version 2":         head(1, 2, 0),
		"size over 4 KiB":   head(2, 1, 4097),
		"size over 4 GiB-1": head(2, 9, math.MaxUint32),
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t, func() {
				f := open(t, path, vhostusertest.Options{})
				defer f.Close()
				if err := f.WriteRaw(raw, f.Mem.FD); err != nil {
					t.Fatal(err)
				}
				if m, err := f.Recv(); !errors.Is(err, io.EOF) {
					t.Errorf("Recv() = %v, %v, want EOF", m, err)
				}
			})
		})
	}
}

// TestGatedByProtocolFeatures: messages of a protocol feature are refused
// until it is accepted.
func TestGatedByProtocolFeatures(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	for name, send := range map[string]func(f *vhostusertest.Frontend) error{
		"config":       func(f *vhostusertest.Frontend) error { return f.SetConfig(4, make([]byte, 4)) },
		"reset":        func(f *vhostusertest.Frontend) error { return f.ResetDevice() },
		"memory slots": func(f *vhostusertest.Frontend) error { return f.AddMemReg(f.Region()) },
		"inflight":     func(f *vhostusertest.Frontend) error { return f.SetInflightFD(vhostusertest.Inflight{FD: f.Mem.FD}) },
		"channel":      func(f *vhostusertest.Frontend) error { return f.SetBackendReqFD(f.BackendEnd()) },
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, path, vhostusertest.Options{})
			defer f.Close()
			if err := f.SetProtocolFeatures(1 << vhostuser.ProtocolReplyAck); err != nil {
				t.Fatal(err)
			}
			if err := send(f); !errors.Is(err, vhostusertest.ErrRefused) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
}

// TestEOFAtEveryByte hangs up after each prefix of a valid conversation.
func TestEOFAtEveryByte(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	dial(t, path, vhostusertest.Options{}).Close()
	type part struct {
		bytes []byte
		fds   []int
	}
	conversation := func(f *vhostusertest.Frontend) []part {
		msg := func(r vhostuser.Request, body []byte, fds ...int) part {
			return part{vhostusertest.Encode(r, vhostusertest.Version, body), fds}
		}
		cfg := f.Driver().Config()
		body, fds := vhostusertest.MemTable(f.Region())
		return []part{
			msg(vhostuser.SetFeatures, vhostusertest.U64(1<<32|1<<30)),
			msg(vhostuser.SetMemTable, body, fds...),
			msg(vhostuser.SetVringNum, vhostusertest.State(0, uint32(cfg.Size))),
			msg(vhostuser.SetVringAddr, vhostusertest.Addr(0, 0, cfg.Desc, cfg.Device, cfg.Driver, 0)),
			msg(vhostuser.SetVringCall, vhostusertest.U64(0), f.Call),
			msg(vhostuser.SetVringKick, vhostusertest.U64(0), f.Kick),
			msg(vhostuser.SetVringEnable, vhostusertest.State(0, 1)),
		}
	}
	total := 0
	probe := open(t, path, vhostusertest.Options{})
	for _, p := range conversation(probe) {
		total += len(p.bytes)
	}
	probe.Close()
	checkLeaks(t, func() {
		for cut := range total {
			f := open(t, path, vhostusertest.Options{})
			left := cut
			for _, p := range conversation(f) {
				n := min(left, len(p.bytes))
				if n == 0 {
					break
				}
				if err := f.WriteRaw(p.bytes[:n], p.fds...); err != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				left -= n
			}
			f.Close()
		}
		exchangeOnce(t, path)
	})
}

// exchangeOnce checks that the server still serves.
func exchangeOnce(t *testing.T, path string) {
	t.Helper()
	f := dial(t, path, vhostusertest.Options{})
	defer f.Close()
	exchange(t, f, []byte("hello"))
}
