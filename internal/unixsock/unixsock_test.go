// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hang guards every wait.
const hang = 30 * time.Second

// pair is two connected sockets of a type, both ends ours.
func pair(t *testing.T, kind int) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(hang)); err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// pipe is a pipe of which the test closes both ends.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestDescriptorsArriveAndWork(t *testing.T) {
	for name, kind := range map[string]int{"stream": unix.SOCK_STREAM, "packets": unix.SOCK_SEQPACKET} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, kind)
			r, w := pipe(t)
			if err := Send(a, []byte("two"), int(w.Fd()), int(r.Fd())); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 16)
			n, fds, err := Receive(b, buf, make([]byte, Space(2)))
			if err != nil || string(buf[:n]) != "two" || len(fds) != 2 {
				t.Fatalf("Receive = %q, %d descriptors, %v", buf[:n], len(fds), err)
			}
			if flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor is not closed on exec: flags %#x, %v", flags, err)
			}
			if _, err := unix.Write(fds[0], []byte("x")); err != nil {
				t.Error(err)
			}
			CloseAll(fds)
			one := make([]byte, 1)
			if _, err := io.ReadFull(r, one); err != nil || one[0] != 'x' {
				t.Errorf("the pipe gave %q, %v", one, err)
			}
		})
	}
}

// TestReceiveFrame: descriptors that come with any byte of the head arrive, or are
// closed.
func TestReceiveFrame(t *testing.T) {
	r, w := pipe(t)
	a, b := pair(t, unix.SOCK_STREAM)
	head, body, refused := make([]byte, 2), make([]byte, 2), errors.New("refused")
	receive := func() ([]int, error) {
		return ReceiveFrame(b, head, make([]byte, Space(1)), func() ([]byte, error) {
			if head[0] == 'x' {
				return nil, refused
			}
			return body, nil
		})
	}
	for _, part := range []string{"a", "bc", "d"} {
		if err := Send(a, []byte(part), int(w.Fd())); err != nil {
			t.Fatal(err)
		}
	}
	fds, err := receive()
	if err != nil || string(head)+string(body) != "abcd" || len(fds) != 2 {
		t.Fatalf("ReceiveFrame = %q, %q, %d descriptors, %v", head, body, len(fds), err)
	}
	CloseAll(fds)

	for _, tc := range []struct {
		part string
		want error
	}{{"xy", refused}, {"ab", io.ErrUnexpectedEOF}, {"", io.EOF}} {
		if tc.part != "" {
			if err := Send(a, []byte(tc.part), int(w.Fd())); err != nil {
				t.Fatal(err)
			}
		}
		if tc.want != refused {
			a.CloseWrite()
		}
		if fds, err := receive(); err != tc.want || fds != nil {
			t.Errorf("ReceiveFrame of %q = %v, %v, want %v", tc.part, fds, err, tc.want)
		}
	}
	w.Close() // the last one, if none is left behind
	if err := r.SetReadDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(head); err != io.EOF {
		t.Errorf("the pipe's other end is open: %v", err)
	}
}

func TestMoreThanThereIsRoomForIsAnError(t *testing.T) {
	r, w := pipe(t)
	a, b := pair(t, unix.SOCK_SEQPACKET)
	if err := Send(a, []byte("m"), int(r.Fd()), int(w.Fd()), int(r.Fd()), int(w.Fd()), int(r.Fd())); err != nil {
		t.Fatal(err)
	}
	_, fds, err := Receive(b, make([]byte, 4), make([]byte, Space(2)))
	if !errors.Is(err, ErrTruncated) {
		t.Errorf("too many descriptors: %v", err)
	}
	CloseAll(fds)

	if err := Send(a, []byte("long")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Receive(b, make([]byte, 3), nil); !errors.Is(err, ErrTruncated) {
		t.Errorf("a packet that is too long: %v", err)
	}
}

// A reader that polls with a deadline must not lose what came before the error.
func TestEndsAndDeadlines(t *testing.T) {
	a, b := pair(t, unix.SOCK_STREAM)
	if err := b.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Receive(b, make([]byte, 1), nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if err := b.SetReadDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, _, err := Receive(b, make([]byte, 1), nil); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestEOF(t *testing.T) {
	other := errors.New("other")
	for _, tc := range []struct {
		err    error
		within bool
		want   error
	}{
		{io.EOF, false, io.EOF},
		{io.EOF, true, io.ErrUnexpectedEOF},
		{io.ErrUnexpectedEOF, false, io.EOF},
		{&net.OpError{Op: "read", Err: unix.ECONNRESET}, false, io.EOF},
		{&net.OpError{Op: "read", Err: unix.ECONNRESET}, true, io.ErrUnexpectedEOF},
		{other, true, other},
	} {
		if got := EOF(tc.err, tc.within); got != tc.want {
			t.Errorf("EOF(%v, %v) = %v, want %v", tc.err, tc.within, got, tc.want)
		}
	}
}

func TestBrokenControlData(t *testing.T) {
	long := unix.UnixRights(0)
	long[0]++ // the length in its header
	if fds, err := Rights(long[:unix.CmsgLen(4)]); err == nil || fds != nil {
		t.Errorf("Rights = %v, %v", fds, err)
	}
	// Credentials are no descriptors.
	if fds, err := Rights(unix.UnixCredentials(&unix.Ucred{Pid: 1})); err != nil || fds != nil {
		t.Errorf("Rights of credentials = %v, %v", fds, err)
	}
}

func TestPeer(t *testing.T) {
	a, _ := pair(t, unix.SOCK_STREAM)
	cred, err := Peer(a)
	if err != nil || int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Getuid() {
		t.Errorf("Peer = %+v, %v", cred, err)
	}
	a.Close()
	if _, err := Peer(a); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Peer of a closed socket: %v", err)
	}
}

func listen(t *testing.T) (ln *net.UnixListener, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, path
}

// readOne serves a connection of which it reads a byte.
func readOne(t *testing.T, served chan<- byte) func(*net.UnixConn) {
	return func(c *net.UnixConn) {
		defer c.Close()
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Errorf("read: %v", err)
		}
		served <- b[0]
	}
}

func TestAcceptServesOneAfterTheOther(t *testing.T) {
	ln, path := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan byte)
	ended := make(chan error)
	go func() {
		ended <- Accept(ctx, ln, func(err error) { t.Errorf("accept: %v", err) }, readOne(t, served))
	}()
	for _, want := range []byte("ab") {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{want}); err != nil {
			t.Fatal(err)
		}
		if got := <-served; got != want {
			t.Errorf("served %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Accept after the end of its context: %v", err)
	}
	ln.Close()
	if err := Accept(t.Context(), ln, nil, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept on a closed listener: %v", err)
	}
}

// TestSilenceKeepsNobodyAway: who says nothing waits, until too many do; who speaks is
// served.
func TestSilenceKeepsNobodyAway(t *testing.T) {
	ln, path := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan byte, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- AcceptSpeakers(ctx, ln, func(err error) { t.Errorf("accept: %v", err) }, readOne(t, served))
	}()
	dial := func() net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(hang)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	dial().Close()
	var silent []net.Conn
	for range maxWaiting + 3 {
		silent = append(silent, dial())
	}
	b := make([]byte, 1)
	for i, c := range silent[:3] {
		if _, err := c.Read(b); !errors.Is(err, io.EOF) {
			t.Errorf("silent peer %d of %d: %v, want to be hung up on", i, len(silent), err)
		}
	}
	last := len(silent) - 1
	for i, c := range []net.Conn{silent[last], dial(), silent[last-1]} {
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if got := <-served; got != byte(i) {
			t.Errorf("served %d, want %d", got, i)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("AcceptSpeakers after the end of its context: %v", err)
	}
	if _, err := silent[last-2].Read(b); !errors.Is(err, io.EOF) {
		t.Errorf("a silent peer after the end: %v, want io.EOF", err)
	}
}

func TestSeat(t *testing.T) {
	var s Seat
	free, ok := s.Take()
	if !ok {
		t.Fatal("a free seat could not be taken")
	}
	if _, ok := s.Take(); ok {
		t.Error("a taken seat was taken")
	}
	free()
	if _, ok := s.Take(); !ok {
		t.Error("the seat was not freed")
	}
}
