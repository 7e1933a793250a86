// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue"
)

func TestConfigSpace(t *testing.T) {
	written := make(chan []byte, 1)
	dev := &echo{onConfig: func(off uint32, src []byte) error {
		written <- append([]byte{byte(off)}, src...)
		return nil
	}}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := realized(t, path, vhostusertest.Options{})
	got, err := f.GetConfig(0, 8)
	if want := []byte{0, 0x10, 2, 3, 0, 0, 0, 0}; err != nil || !bytes.Equal(got, want) {
		t.Errorf("GetConfig(0, 8) = %x, %v, want %x", got, err, want)
	}
	got, err = f.GetConfig(2, 254)
	if err != nil || len(got) != 254 || !bytes.Equal(got[:2], []byte{2, 3}) || !bytes.Equal(got[2:], make([]byte, 252)) {
		t.Errorf("GetConfig(2, 254) = %x, %v, want 2, 4 and zeros", got, err)
	}
	// "back-end uses zero length of payload to indicate an error"
	if _, err := f.GetConfig(2, 255); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Errorf("GetConfig(2, 255) = %v, want a refusal", err)
	}
	must(t, f.SetConfig(4, []byte{9, 8}))
	if got := <-written; !bytes.Equal(got, []byte{4, 9, 8}) {
		t.Errorf("device saw write %x", got)
	}
	must(t, f.Ack(vhostuser.SetConfig, vhostusertest.ConfigAccess(4, 1, []byte{7})))
	if len(written) != 0 {
		t.Errorf("a write of migrated state reached the device: %x", <-written)
	}
}

// QEMU shares all memory again when a device is plugged where another one was,
// and has not taken back what the first one was given.
func TestReplugOnTheSameConnection(t *testing.T) {
	for _, slots := range []bool{false, true} {
		dev := &echo{}
		path, _ := serve(t, vhostuser.Config{Device: dev})
		f := dial(t, path, vhostusertest.Options{MemSlots: slots, LogAll: true})
		for range 3 {
			exchange(t, f, []byte("before"))
			must(t, f.Replug())
			exchange(t, f, []byte("after"))
			must(t, f.Stop())
			must(t, f.Replug())
		}
	}
}

func TestStatus(t *testing.T) {
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})
	must(t, f.SetStatus(0xf))
	if got, err := f.GetStatus(); err != nil || got != 0xf {
		t.Errorf("GetStatus() = %#x, %v, want 0xf", got, err)
	}
	exchange(t, f, []byte("x"))
	must(t, f.SetStatus(0))
	if got, err := f.GetStatus(); err != nil || got != 0 || dev.stops.Load() != 1 || dev.resets.Load() != 0 {
		t.Errorf("after status 0: status %d, %v, %d stops, %d resets; want 0, nil, 1, 0", got, err, dev.stops.Load(), dev.resets.Load())
	}
	if base, err := f.GetVringBase(0); err != nil || base != 1 {
		t.Errorf("GetVringBase() = %d, %v, want 1: the place is kept", base, err)
	}
}

func TestResetDevice(t *testing.T) {
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})
	exchange(t, f, []byte("x"))
	must(t, f.ResetDevice())
	if stops, resets := dev.stops.Load(), dev.resets.Load(); stops != 1 || resets != 1 {
		t.Errorf("%d stops and %d resets, want 1 and 1", stops, resets)
	}
	must(t, f.Restart())
	exchange(t, f, []byte("y"))
}

func TestRunningRingRefusesSetup(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := dial(t, path, vhostusertest.Options{})
	cfg := f.Driver().Config()
	for name, err := range map[string]error{
		"num":      f.Ack(vhostuser.SetVringNum, vhostusertest.State(0, 8)),
		"base":     f.Ack(vhostuser.SetVringBase, vhostusertest.State(0, 8)),
		"addr":     f.Ack(vhostuser.SetVringAddr, vhostusertest.Addr(0, 0, cfg.Desc+16, cfg.Device, cfg.Driver, 0)),
		"features": f.Ack(vhostuser.SetFeatures, vhostusertest.U64(f.Accepted()&^1|1<<29)),
	} {
		if !errors.Is(err, vhostusertest.ErrRefused) {
			t.Errorf("%s on a running ring = %v, want a refusal", name, err)
		}
	}
	exchange(t, f, []byte("unharmed"))
}

// TestWithoutProtocolFeatures: rings start enabled, and there is no ENABLE.
func TestWithoutProtocolFeatures(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := open(t, path, vhostusertest.Options{})
	cfg := f.Driver().Config()
	must(t, f.SetOwner())
	must(t, f.SetFeatures(1<<virtqueue.FeatureVersion1))
	body, fds := vhostusertest.MemTable(f.Region())
	must(t, f.Send(vhostuser.SetMemTable, vhostusertest.Version, body, fds...))
	must(t, f.SetVringNum(0, uint32(cfg.Size)))
	must(t, f.SetVringBase(0, 0))
	must(t, f.SetVringAddr(0, 0, cfg.Desc, cfg.Device, cfg.Driver, 0))
	must(t, f.Send(vhostuser.SetVringCall, vhostusertest.Version, vhostusertest.U64(0), f.Call))
	must(t, f.Send(vhostuser.SetVringKick, vhostusertest.Version, vhostusertest.U64(0), f.Kick))
	exchange(t, f, []byte("plain"))
	if base, err := f.GetVringBase(0); err != nil || base != 1 {
		t.Errorf("GetVringBase() = %d, %v, want 1", base, err)
	}
}

// TestPendingWorkWithoutKick: requests that an earlier back-end was kicked
// for are served when the ring starts.
func TestPendingWorkWithoutKick(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := realized(t, path, vhostusertest.Options{EventIdx: true})
	_, err := f.Driver().Add([][]byte{[]byte("old")}, []int{8}, false)
	must(t, err)
	must(t, f.Start())
	wantUsed(t, f, "old")
}

// TestDirtyLog switches logging on while the ring runs, as migration does.
func TestDirtyLog(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := dial(t, path, vhostusertest.Options{LogAll: true, Features: 7})
	cfg := f.Driver().Config()
	dirty := func(gpa uint64) bool { return f.Log.Bytes[gpa>>12>>3]>>(gpa>>12&7)&1 != 0 }
	usedPage := cfg.Device - vhostusertest.UserBase + vhostusertest.GuestBase

	addr := func(flags uint32) error {
		return f.Ack(vhostuser.SetVringAddr, vhostusertest.Addr(0, flags, cfg.Desc, cfg.Device, cfg.Driver, usedPage))
	}
	// Off: no page is marked.
	must(t, f.Ack(vhostuser.SetFeatures, vhostusertest.U64(f.Accepted()&^(1<<vhostuser.FeatureLogAll))))
	must(t, addr(0))
	clear(f.Log.Bytes)
	exchange(t, f, []byte("unlogged"))
	if bytes.ContainsFunc(f.Log.Bytes, func(r rune) bool { return r != 0 }) {
		t.Error("pages were marked while logging was off")
	}
	// On, in QEMU's order: features, then addresses with the log flag.
	must(t, f.Ack(vhostuser.SetFeatures, vhostusertest.U64(f.Accepted())))
	must(t, addr(1))
	exchange(t, f, []byte("logged"))
	if !dirty(usedPage) {
		t.Error("the used ring's page is not marked")
	}
	// A new, smaller log in mid-flight: out of range is ignored, not written.
	small, err := vhostusertest.NewMemory(page)
	must(t, err)
	defer small.Close()
	status, err := f.SetLogBase(small.FD, page, 0)
	if err != nil || status != 0 {
		t.Fatalf("SetLogBase() = %d, %v", status, err)
	}
	exchange(t, f, []byte("past the log"))
	// A log beyond its file is refused, and the old one stays.
	if status, err := f.SetLogBase(small.FD, page, 8); err != nil || status == 0 {
		t.Errorf("SetLogBase beyond the file = %d, %v, want a failure", status, err)
	}
	exchange(t, f, []byte("still runs"))
}

func TestDeviceState(t *testing.T) {
	dev := &echo{state: bytes.Repeat([]byte("state"), 50000)} // more than a pipe holds
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})

	if status := transferStatus(t, f, 0, 0); status&0xff == 0 {
		t.Error("a transfer was started while the ring runs")
	}
	must(t, f.Stop())
	if status := transferStatus(t, f, 2, 0); status&0xff == 0 {
		t.Error("direction 2 was accepted")
	}
	if status := transferStatus(t, f, 0, 1); status&0xff == 0 {
		t.Error("phase 1 was accepted")
	}
	if status, err := f.CheckDeviceState(); err != nil || status == 0 {
		t.Errorf("CheckDeviceState() without transfer = %d, %v, want a failure", status, err)
	}
	saved := save(t, f)
	if !bytes.Equal(saved, dev.state) {
		t.Errorf("saved %d bytes, want the %d of the device", len(saved), len(dev.state))
	}
	if status := load(t, f, []byte("other")); status != 0 {
		t.Errorf("load: status %d", status)
	}
	if got := save(t, f); string(got) != "other" {
		t.Errorf("after load the device holds %q", got)
	}
	if status := load(t, f, make([]byte, 16<<20+1)); status == 0 {
		t.Error("a state over 16 MiB was accepted")
	}
	if got := save(t, f); string(got) != "other" {
		t.Errorf("after a failed load the device holds %d bytes", len(got))
	}
	must(t, f.Continue())
	exchange(t, f, []byte("goes on"))
}

// transferStatus asks for a transfer that should not start.
func transferStatus(t *testing.T, f *vhostusertest.Frontend, direction, phase uint32) uint64 {
	t.Helper()
	_, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	status, err := f.SetDeviceStateFD(direction, phase, int(w.Fd()))
	must(t, err)
	return status
}

func save(t *testing.T, f *vhostusertest.Frontend) []byte {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	status, err := f.SetDeviceStateFD(0, 0, int(w.Fd()))
	must(t, err)
	_ = w.Close()
	if status != 0x100 { // success, and no descriptor returned
		t.Fatalf("SetDeviceStateFD(save) = %#x, want 0x100", status)
	}
	b, err := io.ReadAll(r)
	must(t, err)
	if status, err := f.CheckDeviceState(); err != nil || status != 0 {
		t.Fatalf("CheckDeviceState() = %d, %v", status, err)
	}
	return b
}

func load(t *testing.T, f *vhostusertest.Frontend, state []byte) uint64 {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	status, err := f.SetDeviceStateFD(1, 0, int(r.Fd()))
	must(t, err)
	_ = r.Close()
	if status != 0x100 {
		t.Fatalf("SetDeviceStateFD(load) = %#x, want 0x100", status)
	}
	_, _ = w.Write(state) // fails early if the back-end has seen too much
	_ = w.Close()
	status, err = f.CheckDeviceState()
	must(t, err)
	return status
}

// TestDeviceStateHangUp: a session that ends in a transfer leaves nothing.
func TestDeviceStateHangUp(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{state: make([]byte, 1<<20)}})
	dial(t, path, vhostusertest.Options{}).Close()
	checkLeaks(t, func() {
		for direction := range uint32(2) {
			f := realized(t, path, vhostusertest.Options{})
			r, w, err := os.Pipe()
			must(t, err)
			end := w
			if direction == 1 {
				end = r
			}
			if _, err := f.SetDeviceStateFD(direction, 0, int(end.Fd())); err != nil {
				t.Fatal(err)
			}
			f.Close()
			exchangeOnce(t, path) // while our ends of the pipe are still open
			_ = w.Close()
			if direction == 0 {
				if b, err := io.ReadAll(r); err != nil || len(b) == 1<<20 {
					t.Errorf("read %d bytes, %v: the transfer outlived its session", len(b), err)
				}
			}
			_ = r.Close()
		}
	})
}

// TestRingWaitsForTransfer: a device whose state is on its way does not run.
func TestRingWaitsForTransfer(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{state: make([]byte, 1<<20)}})
	f := dial(t, path, vhostusertest.Options{})
	must(t, f.Stop())
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	if status, err := f.SetDeviceStateFD(0, 0, int(w.Fd())); err != nil || status != 0x100 {
		t.Fatalf("SetDeviceStateFD() = %#x, %v", status, err)
	}
	_ = w.Close()
	if status := transferStatus(t, f, 0, 0); status&0xff == 0 {
		t.Error("a second transfer was started beside the first")
	}
	if err := f.Continue(); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Errorf("start in mid-transfer = %v, want a refusal", err)
	}
	if b, err := io.ReadAll(r); err != nil || len(b) != 1<<20 {
		t.Fatalf("read %d bytes, %v", len(b), err)
	}
	if status, err := f.CheckDeviceState(); err != nil || status != 0 {
		t.Fatalf("CheckDeviceState() = %d, %v", status, err)
	}
	must(t, f.Stop())
	must(t, f.Continue())
	exchange(t, f, []byte("after"))
}

// TestSessionReleasesSharedMemory: logs and in-flight areas go with it, and
// those that were replaced went before.
func TestSessionReleasesSharedMemory(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	dial(t, path, vhostusertest.Options{}).Close()
	checkLeaks(t, func() {
		f := dial(t, path, vhostusertest.Options{LogAll: true, Inflight: true})
		fds, maps := openFDs(t), mappings(t)
		for range 5 {
			if status, err := f.SetLogBase(f.Log.FD, page, 0); err != nil || status != 0 {
				t.Fatalf("SetLogBase() = %d, %v", status, err)
			}
		}
		exchange(t, f, []byte("x"))
		must(t, f.Stop())
		for range 5 {
			d, err := f.GetInflightFD(1, 64)
			must(t, err)
			must(t, f.SetInflightFD(d))
			_ = unix.Close(d.FD)
		}
		if got := mappings(t); got != maps {
			t.Errorf("%d mappings, want %d", got, maps)
		}
		if got := openFDs(t); got > fds {
			t.Errorf("%d descriptors, want %d", got, fds)
		}
		f.Close()
	})
}

// TestNeedReplyNeedsReplyAck: the flag means nothing before REPLY_ACK is accepted.
func TestNeedReplyNeedsReplyAck(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := open(t, path, vhostusertest.Options{})
	must(t, f.Send(vhostuser.SetOwner, vhostusertest.Version|vhostusertest.NeedReply, nil))
	if _, err := f.GetFeatures(); err != nil { // fails on an answer to SET_OWNER
		t.Error(err)
	}
}

func TestConfigChanged(t *testing.T) {
	path, srv := serve(t, vhostuser.Config{Device: &echo{}})
	if err := srv.ConfigChanged(); !errors.Is(err, vhostuser.ErrNoChannel) {
		t.Errorf("ConfigChanged() without session = %v, want ErrNoChannel", err)
	}
	f := dial(t, path, vhostusertest.Options{})
	must(t, srv.ConfigChanged())
	got := make([]byte, 64)
	n, err := unix.Read(f.BackendChannel(), got)
	if want := vhostusertest.Encode(2, vhostusertest.Version, nil); err != nil || !bytes.Equal(got[:n], want) {
		t.Errorf("channel carries % x, %v, want % x", got[:n], err, want)
	}
	// A front-end that does not read cannot block the device.
	for range 1 << 20 {
		if err = srv.ConfigChanged(); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("a full channel never reports that")
	}
	f.Close()
	eventually(t, "the channel closes with the session", func() bool {
		return errors.Is(srv.ConfigChanged(), vhostuser.ErrNoChannel)
	})
}

func TestOnConnect(t *testing.T) {
	var refuse atomic.Bool
	ended := make(chan error, 4)
	peers := make(chan vhostuser.Peer, 4)
	path, _ := serve(t, vhostuser.Config{
		Device: &echo{},
		OnConnect: func(_ context.Context, p vhostuser.Peer) error {
			peers <- p
			if refuse.Load() {
				return errors.New("stranger")
			}
			return nil
		},
		OnDisconnect: func(err error) { ended <- err },
	})
	f := dial(t, path, vhostusertest.Options{})
	f.Close()
	if p := <-peers; p.PID != os.Getpid() || p.UID != uint32(os.Getuid()) || p.GID != uint32(os.Getgid()) {
		t.Errorf("peer %+v, want this process", p)
	}
	if err := <-ended; err != nil {
		t.Errorf("OnDisconnect(%v) after a clean hang-up, want nil", err)
	}
	refuse.Store(true)
	g := open(t, path, vhostusertest.Options{})
	if _, err := g.GetFeatures(); err == nil {
		t.Error("a refused front-end got an answer")
	}
	if len(ended) != 0 {
		t.Errorf("OnDisconnect(%v) for a front-end that was refused", <-ended)
	}
}

// TestFeatureMasks: what a mask withholds is neither offered nor accepted.
func TestFeatureMasks(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{
		Device:           &echo{},
		Features:         ^uint64(1 << virtqueue.FeatureRingPacked),
		ProtocolFeatures: ^uint64(1 << vhostuser.ProtocolConfigureMemSlots),
	})
	f := open(t, path, vhostusertest.Options{})
	if got, err := f.GetFeatures(); err != nil || got != 0x174000007 {
		t.Errorf("GetFeatures() = %#x, %v, want 0x174000007", got, err)
	}
	if got, err := f.GetProtocolFeatures(); err != nil || got != 0x9322b {
		t.Errorf("GetProtocolFeatures() = %#x, %v, want 0x9322b", got, err)
	}
	if err := f.SetFeatures(1 << virtqueue.FeatureRingPacked); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GetFeatures(); err == nil {
		t.Error("a feature that was not offered was accepted")
	}
}

func TestNewServerChecksConfig(t *testing.T) {
	for name, cfg := range map[string]vhostuser.Config{
		"no device":       {},
		"too many queues": {Device: &echo{queues: 257}},
		"huge queue":      {Device: &echo{}, MaxQueueSize: 32769},
		"negative queue":  {Device: &echo{}, MaxQueueSize: -1},
	} {
		if _, err := vhostuser.NewServer(cfg); err == nil {
			t.Errorf("%s: NewServer accepts it", name)
		}
	}
}
