// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
)

const headerSize = 12 // of a vhost-user message

// relay stands between QEMU and a backend and writes down what they say, in the
// format of vhostuser/testdata/README.md.
type relay struct {
	Socket  string // QEMU connects here
	backend string
	done    chan error // gets how the relay ended

	mu    sync.Mutex
	lines []string
	base  uint32 // of the ring when it was last set
	size  uint32
	stop  int // the line that disabled it
}

// startRelay relays one connection to a backend. It ends with QEMU.
func (b *bed) startRelay(backend string) *relay {
	b.Helper()
	r := &relay{Socket: backend + "r", backend: backend, done: make(chan error, 1)}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.Socket, Net: "unix"})
	b.must("the relay's socket", err)
	b.Cleanup(func() { ln.Close() })
	go func() {
		front, err := ln.AcceptUnix()
		if err == nil {
			err = r.relay(front)
		}
		r.done <- err
	}()
	return r
}

// relay returns when both sides have hung up.
func (r *relay) relay(front *net.UnixConn) error {
	defer front.Close()
	back, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.backend, Net: "unix"})
	if err != nil {
		return err
	}
	defer back.Close()
	replies := make(chan error, 1)
	go func() { replies <- r.forward('<', front, back) }()
	err = r.forward('>', back, front)
	return errors.Join(err, back.CloseWrite(), <-replies)
}

// forward passes on messages with their descriptors until from hangs up.
func (r *relay) forward(direction byte, to, from *net.UnixConn) error {
	for {
		message, oob, err := receive(from)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fds, err := descriptors(oob)
		if err == nil {
			r.record(direction, message, fds)
			_, _, err = to.WriteMsgUnix(message, oob, nil)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
}

// receive takes one message from the stream, and the descriptors that came with
// its header.
func receive(from *net.UnixConn) (message, oob []byte, err error) {
	const maxBody = 4096
	message, oob = make([]byte, headerSize, headerSize+maxBody), make([]byte, unix.CmsgSpace(16*4))
	n, oobn, _, _, err := from.ReadMsgUnix(message, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil {
		_, err = io.ReadFull(from, message[n:])
	}
	if err != nil {
		return nil, nil, err
	}
	size := binary.NativeEndian.Uint32(message[8:])
	if size > maxBody {
		return nil, nil, fmt.Errorf("a message of %d bytes", size)
	}
	message = message[:headerSize+size]
	_, err = io.ReadFull(from, message[headerSize:])
	return message, oob[:oobn], err
}

func descriptors(oob []byte) ([]int, error) {
	blocks, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(blocks) == 0 {
		return nil, err
	}
	return unix.ParseUnixRights(&blocks[0])
}

// record writes down one message.
func (r *relay) record(direction byte, message []byte, fds []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	request := vhostuser.Request(binary.NativeEndian.Uint32(message))
	var line strings.Builder
	fmt.Fprintf(&line, "%c", direction)
	for at := 0; at < len(message); at += 4 {
		fmt.Fprintf(&line, " %s", hex.EncodeToString(message[at:min(at+4, len(message))]))
	}
	for _, fd := range fds {
		fmt.Fprintf(&line, " +%s", kindOf(fd))
	}
	if direction == '>' {
		fmt.Fprintf(&line, "  # %v", request)
	}
	r.count(direction, request, message[headerSize:])
	r.lines = append(r.lines, line.String())
}

// count notes, where the ring is stopped, how many requests of the guest it had
// since it was started.
func (r *relay) count(direction byte, request vhostuser.Request, body []byte) {
	if len(body) != 8 {
		return
	}
	value := binary.NativeEndian.Uint32(body[4:])
	switch {
	case request == vhostuser.SetVringNum:
		r.size = value
	case request == vhostuser.SetVringBase:
		r.base = value
	case request == vhostuser.SetVringEnable && direction == '>' && value == 0:
		r.stop = len(r.lines)
		if r.stop > 0 && r.lines[r.stop-1][0] == '#' {
			r.stop--
		}
	case request == vhostuser.GetVringBase && direction == '<':
		n := fmt.Sprintf("! %d requests", requests(r.base, value, r.size))
		r.lines = slices.Insert(r.lines, r.stop, n)
	}
}

// requests is the distance of two ring positions. A packed one has two slots
// with their wrap counters, and each request takes one slot by its indirect
// table; whole turns of the ring do not show.
func requests(from, to, size uint32) uint32 {
	if from>>16 == 0 && to>>16 == 0 {
		return to - from
	}
	place := func(base uint32) uint32 {
		slot := base & 0x7fff
		if base&0x8000 == 0 {
			slot += size
		}
		return slot
	}
	return (place(to) + 2*size - place(from)) % (2 * size)
}

// kindOf names what a descriptor is of: eventfd, memfd or socket.
func kindOf(fd int) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	switch {
	case err != nil:
		return err.Error()
	case strings.HasPrefix(link, "/memfd:"):
		return "memfd"
	case strings.HasPrefix(link, "socket:"):
		return "socket"
	}
	return strings.Trim(strings.TrimPrefix(link, "anon_inode:"), "[]")
}

// note puts what the host does next above the messages that follow from it.
func (r *relay) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, "# "+what)
}

// conversation is all that was recorded.
func (r *relay) conversation() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n") + "\n"
}
