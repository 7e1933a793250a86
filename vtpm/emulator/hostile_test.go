// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
)

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Descriptors that come with any request, too many, or of a wrong kind, are
// closed, and do no harm.
func TestUnwantedDescriptors(t *testing.T) {
	p := dialPeer(t, serveSlot(t, &fakeSlot{}, nil))
	p.ask(words(cmdGetConfig))
	null, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	before, fd := openFiles(t), int(null.Fd())
	for range 20 {
		p.ask(words(cmdGetConfig), fd)
		p.ask(words(cmdStop), fd, fd, fd, fd, fd, fd, fd, fd)
		p.ask(words(0xffffffff), fd)
		for what, fds := range map[string][]int{"a device": {fd, fd}, "datagrams": {pair[0]}, "none": nil} {
			if res := p.result(words(cmdSetDataFD), fds...); res != resBadParameter {
				t.Errorf("SET_DATAFD with %s = %#x, want %#x", what, res, resBadParameter)
			}
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors were open, now %d", before, after)
	}
}

// Who connects and says nothing keeps nobody away.
func TestSilentPeers(t *testing.T) {
	path := serveSlot(t, &fakeSlot{}, nil)
	for range 40 {
		dialPeer(t, path)
	}
	dialPeer(t, path).ask(words(cmdGetConfig))
}

// A command in pieces, a piece of a command, and a peer that makes the socket
// non-blocking under the server: the channel stays in step.
func TestDataInPieces(t *testing.T) {
	slot := &fakeSlot{}
	p := dialPeer(t, serveSlot(t, slot, nil))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := pair[1]
	t.Cleanup(func() { unix.Close(theirs) })
	p.result(words(cmdSetDataFD), theirs)
	_ = unix.SetNonblock(pair[0], true)
	p.data = os.NewFile(uintptr(pair[0]), "data")
	p.result(words(cmdInit, 0))

	for i := range getRandom {
		if _, err := p.data.Write(getRandom[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if resp := p.read(p.data); codeOf(resp) != 0 {
		t.Errorf("a command in %d pieces: % x", len(getRandom), resp)
	}
	if err := unix.SetNonblock(theirs, true); err != nil { // the file is shared
		t.Fatal(err)
	}
	for range 3 {
		if rc := p.rc(getRandom); rc != 0 {
			t.Errorf("a command over a non-blocking socket: %#x", rc)
		}
	}
	for _, piece := range [][]byte{getRandom[:5], getRandom[:11]} {
		if rc := p.rc(piece); rc != rcCommandSize { // after splitTimeout
			t.Errorf("%d bytes of a command: %#x, want %#x", len(piece), rc, rcCommandSize)
		}
	}
	if rc := p.rc(getRandom); rc != 0 {
		t.Errorf("the next command: %#x", rc)
	}
	// A peer that floods is answered chunk by chunk.
	if rc := p.rc(make([]byte, maxBuffer+1)); rc != rcCommandSize {
		t.Errorf("%d bytes: %#x", maxBuffer+1, rc)
	}
}

// STOP comes after the running command, and nothing gets in behind it.
func TestStopWaitsForTheCommand(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	slot := &fakeSlot{}
	slot.answer = func(cmd coproc.Command, resp []byte) (int, error) {
		if codeOf(cmd.Bytes) != ccShutdown {
			close(begun)
			<-finish
		}
		return putError(resp, 0), nil
	}
	p := startedPeer(t, slot)
	p.result(words(cmdInit, 0))
	if _, err := p.data.Write(getRandom); err != nil {
		t.Fatal(err)
	}
	<-begun
	p.send(words(cmdStop))
	close(finish)
	if resp := p.read(p.data); codeOf(resp) != 0 {
		t.Errorf("the command: % x", resp)
	}
	if a := p.answer(); order.Uint32(a) != 0 {
		t.Errorf("STOP: % x", a)
	}
	if rc := p.rc(getRandom); rc != rcFailure {
		t.Errorf("a command after STOP: %#x", rc)
	}
}

// The end of the context ends a session in the middle of anything.
func TestContextEndsSession(t *testing.T) {
	for _, what := range []string{"idle", "half a request", "running"} {
		t.Run(what, func(t *testing.T) {
			begun := make(chan struct{}, 1)
			slot := &fakeSlot{cancel: make(chan struct{}, 1)}
			slot.answer = func(cmd coproc.Command, resp []byte) (int, error) {
				if codeOf(cmd.Bytes) != ccShutdown {
					begun <- struct{}{}
					<-slot.cancel
				}
				return putError(resp, 0), nil
			}
			server, err := NewServer(Config{Slot: slot, OnConnect: func(Peer) coproc.RunID { return coproc.RunID{} }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			theirs, mine := socketPair(t)
			done := make(chan error, 1)
			go func() { done <- server.ServeConn(ctx, mine) }()
			p := newPeer(t, theirs)
			p.openData()
			p.result(words(cmdInit, 0))
			switch what {
			case "half a request":
				p.send([]byte{0})
			case "running":
				_, _ = p.data.Write(getRandom)
				<-begun
			}
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("ServeConn = %v", err)
				}
			case <-time.After(hang):
				t.Fatal("the session does not end")
			}
		})
	}
}

func TestOneSessionAtATime(t *testing.T) {
	server, err := NewServer(Config{Slot: &fakeSlot{}, OnConnect: func(Peer) coproc.RunID { return coproc.RunID{} }})
	if err != nil {
		t.Fatal(err)
	}
	theirs, mine := socketPair(t)
	done := make(chan error, 1)
	go func() { done <- server.ServeConn(t.Context(), mine) }()
	newPeer(t, theirs).ask(words(cmdGetConfig))
	_, other := socketPair(t)
	if err := server.ServeConn(t.Context(), other); !errors.Is(err, ErrBusy) {
		t.Errorf("a second session: %v, want ErrBusy", err)
	}
	theirs.Close()
	if err := <-done; err != nil {
		t.Errorf("the first session: %v", err)
	}
}

func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

// Commands cost no allocation from the socket to the slot and back.
func TestCommandsAllocateNothing(t *testing.T) {
	slot := &quietSlot{}
	p := dialPeer(t, serveSlot(t, slot, nil))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.result(words(cmdSetDataFD), pair[1])
	unix.Close(pair[1])
	t.Cleanup(func() { unix.Close(pair[0]) })
	p.result(words(cmdInit, 0))
	buf := make([]byte, maxBuffer)
	allocs := testing.AllocsPerRun(2000, func() {
		_, err := unix.Write(pair[0], getRandom)
		n, rerr := unix.Read(pair[0], buf)
		if err != nil || rerr != nil || n != tpmHeader {
			t.Fatal(err, rerr, n)
		}
	})
	if allocs != 0 {
		t.Errorf("%.1f allocations per command", allocs)
	}
}

type quietSlot struct{ fakeSlot }

func (*quietSlot) Execute(_ context.Context, _ coproc.Command, resp []byte) (int, error) {
	return putError(resp, 0), nil
}

// Any bytes on the control channel, in any pieces: the server answers or hangs
// up, and the slot sees no power-on without an INIT.
func FuzzControl(f *testing.F) {
	for _, steps := range [][]byte{
		words(cmdGetCapability), words(cmdInit, 0), words(cmdInit), words(cmdSetStateBlob, 0, 1, 8, 0, 0),
		words(cmdHashData, 0xffffffff), words(cmdGetInfo, 0, 3, 0, 0), words(cmdGetStateBlob, 1, 2, 0), {0, 0, 0},
		slices.Concat(words(cmdInit, 0), words(cmdHashStart), hashRequest("data"), words(cmdHashEnd)),
		slices.Concat(words(cmdInit, 0), words(cmdHashStart), hashRequest(long(5000)), words(cmdGetStateBlob, 1, 2, 0), words(cmdHashEnd)),
		slices.Concat(words(cmdHashData, 3), []byte("ab")), words(cmdHashData, 1<<20, 0), words(cmdHashData, 1<<20+1, 0), words(cmdHashEnd),
		append(words(cmdStop), words(cmdInit, 1)...), words(cmdSetBufferSize, 1), words(cmdSetStateBlob, 0, 1, 0xffffffff),
	} {
		f.Add(steps, uint8(4))
		f.Add(steps, uint8(0))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		slot := &launchMover{fakeMover{blobs: map[BlobKind][]byte{BlobPermanent: {1, 2, 3}}}}
		server, err := NewServer(Config{Slot: slot, Patience: hang, OnConnect: func(Peer) coproc.RunID { return coproc.RunID{1} }})
		if err != nil {
			t.Fatal(err)
		}
		theirs, mine := socketPair(t)
		done := make(chan error, 1)
		go func() { done <- server.ServeConn(t.Context(), mine) }()
		go func() {
			buf := make([]byte, 64<<10)
			for {
				if _, err := theirs.Read(buf); err != nil {
					return
				}
			}
		}()
		at := min(int(cut), len(stream))
		_, _ = theirs.Write(stream[:at])
		_, _ = theirs.Write(stream[at:])
		_ = theirs.CloseWrite()
		select {
		case <-done:
		case <-time.After(hang):
			t.Fatal("the session does not end")
		}
		if calls := slot.took(); len(calls) > 0 && calls[0] != "power-on 1" {
			t.Errorf("the slot was asked to %v", calls)
		}
	})
}

// A request's owed size never shrinks as more of it arrives, and stays bounded.
func FuzzOwed(f *testing.F) {
	f.Add(words(cmdHashData, 1<<31, 0))
	f.Add(words(cmdSetStateBlob, 0, 1, 1<<31, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		last := 0
		for n := range len(b) + 1 {
			got := owed(b[:n])
			if got < last || got < codeBytes || got > maxRequest {
				t.Fatalf("owed(% x) = %d after %d", b[:n], got, last)
			}
			last = got
			if n >= got {
				break
			}
		}
	})
}
