// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue"
)

// TestQEMUConversation replays recorded conversations of QEMU with
// vhost-user-vtpm. Every reply must be the recorded one.
func TestQEMUConversation(t *testing.T) {
	for name, features := range map[string]uint64{
		"split":  ^uint64(1 << virtqueue.FeatureRingPacked),
		"packed": ^uint64(0),
	} {
		t.Run(name, func(t *testing.T) {
			dev := &echo{}
			path, _ := serve(t, vhostuser.Config{Device: dev, Features: features})
			p := newPlayer(t, path, name == "packed")
			p.playFile("testdata/qemu-11.1.3-" + name + ".hex")
			if got := dev.handled.Load(); p.sent == 0 || got != p.sent {
				t.Errorf("device handled %d requests of %d", got, p.sent)
			}
			if starts, stops := dev.starts.Load(), dev.stops.Load(); starts != 4 || stops != 4 {
				t.Errorf("device saw %d starts and %d stops, want 4 and 4", starts, stops)
			}
		})
	}
}

// open connects a front-end that has sent nothing.
func open(t testing.TB, path string, o vhostusertest.Options) *vhostusertest.Frontend {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := vhostusertest.Open(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// player plays the front-end's part and the guest's.
type player struct {
	*testing.T
	vhostusertest.Conn
	guest guest

	file string
	line int
	sent int32 // the guest's requests
}

func newPlayer(t *testing.T, path string, packed bool) *player {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	p := &player{T: t, Conn: vhostusertest.Conn{Sock: c, Timeout: hangGuard}}
	p.guest.options.Packed = packed
	t.Cleanup(func() {
		_ = c.Close()
		p.guest.close()
	})
	return p
}

func (p *player) playFile(name string) {
	p.Helper()
	f, err := os.Open(name)
	must(p, err)
	defer f.Close()
	p.file = name
	for lines := bufio.NewScanner(f); lines.Scan(); {
		p.line++
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text != "" {
			p.play(text[:1], text[1:])
		}
	}
}

func (p *player) play(kind, rest string) {
	p.Helper()
	switch kind {
	case ">":
		data, kinds, _ := strings.Cut(rest, "+")
		p.say(p.bytes(data), strings.Fields(strings.ReplaceAll(kinds, "+", "")))
	case "<":
		p.expect(p.bytes(rest))
	case "!":
		var n int32
		if _, err := fmt.Sscanf(rest, "%d requests", &n); err != nil {
			p.fatalf("%q: %v", rest, err)
		}
		for range n {
			p.sent++
			if err := p.guest.exchange(fmt.Appendf(nil, "request %d", p.sent)); err != nil {
				p.fatalf("request %d of the guest: %v", p.sent, err)
			}
		}
	default:
		p.fatalf("what is %q?", kind)
	}
}

// say sends a message with fresh descriptors of the kinds.
func (p *player) say(message []byte, kinds []string) {
	p.Helper()
	request, body := vhostuser.Request(order.Uint32(message)), message[12:]
	var fds []int
	for _, kind := range kinds {
		fd, err := p.guest.descriptor(kind, request, body)
		if err != nil {
			p.fatalf("%v: descriptor of kind %q: %v", request, kind, err)
		}
		fds = append(fds, fd)
	}
	p.guest.follow(request, body)
	if err := p.WriteRaw(message, fds...); err != nil {
		p.fatalf("%v: %v", request, err)
	}
}

// expect receives one message and compares it word by word.
func (p *player) expect(want []byte) {
	p.Helper()
	m, err := p.Recv()
	if err != nil {
		p.fatalf("no reply: %v, want %v", err, words(want))
	}
	if len(m.FDs) > 0 {
		p.Errorf("%s:%d: %d descriptors in the reply to %v", p.file, p.line, len(m.FDs), m.Request)
	}
	for _, fd := range m.FDs {
		_ = unix.Close(fd)
	}
	got := vhostusertest.Encode(m.Request, m.Flags, m.Body)
	if diff := cmp.Diff(words(want), words(got)); diff != "" {
		p.Errorf("%s:%d: reply to %v (-recorded +now):\n%s", p.file, p.line, m.Request, diff)
	}
}

// words formats a message in a line for each of its 32-bit words.
func words(message []byte) []string {
	var w []string
	for i := 0; i < len(message); i += 4 {
		name := fmt.Sprintf("body[%d]", i-12)
		if i < 12 {
			name = [...]string{"request", "flags", "size"}[i/4]
		}
		w = append(w, fmt.Sprintf("%s = %x", name, message[i:min(i+4, len(message))]))
	}
	return w
}

func (p *player) bytes(s string) []byte {
	p.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil || len(b) < 12 {
		p.fatalf("%q is no message: %v", s, err)
	}
	return b
}

func (p *player) fatalf(format string, args ...any) {
	p.Helper()
	p.Fatalf("%s:%d: %s", p.file, p.line, fmt.Sprintf(format, args...))
}
