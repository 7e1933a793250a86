// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// TestQEMUConversation replays a front-end's life byte for byte.
func TestQEMUConversation(t *testing.T) {
	var protocol uint64
	for _, bit := range []int{vhostuser.ProtocolMQ, vhostuser.ProtocolReplyAck, vhostuser.ProtocolBackendReq,
		vhostuser.ProtocolConfig, vhostuser.ProtocolResetDevice, vhostuser.ProtocolStatus, vhostuser.ProtocolDeviceState} {
		protocol |= 1 << bit
	}
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev, ProtocolFeatures: protocol})
	f := open(t, path, vhostusertest.Options{EventIdx: true, Indirect: true})
	golden, err := os.Open("testdata/qemu-life.hex")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	p := &player{t: t, f: f}
	for lines := bufio.NewScanner(golden); lines.Scan(); {
		p.line++
		text, _, _ := strings.Cut(lines.Text(), "#")
		p.play(strings.TrimSpace(text))
	}
	if got := dev.handled.Load(); got != 3 {
		t.Errorf("device handled %d requests, want 3", got)
	}
	if starts, stops := dev.starts.Load(), dev.stops.Load(); starts != 3 || stops != 3 {
		t.Errorf("device saw %d starts and %d stops, want 3 and 3", starts, stops)
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

type player struct {
	t *testing.T
	f *vhostusertest.Frontend

	line int
}

func (p *player) play(text string) {
	p.t.Helper()
	if text == "" {
		return
	}
	rest := strings.TrimSpace(text[1:])
	switch text[0] {
	case '>':
		data, name, _ := strings.Cut(rest, "+")
		if err := p.f.WriteRaw(p.bytes(data), p.descriptors(name)...); err != nil {
			p.t.Fatalf("line %d: write: %v", p.line, err)
		}
	case '<':
		p.expect(p.bytes(rest))
	case '!':
		p.act(rest)
	default:
		p.t.Fatalf("line %d: %q", p.line, text)
	}
}

func (p *player) expect(want []byte) {
	p.t.Helper()
	got := make([]byte, len(want))
	_ = p.f.Sock.SetReadDeadline(time.Now().Add(hangGuard))
	if n, err := io.ReadFull(p.f.Sock, got); err != nil {
		p.t.Fatalf("line %d: got % x and %v, want % x", p.line, got[:n], err, want)
	}
	if !bytes.Equal(got, want) {
		p.t.Fatalf("line %d:\n got % x\nwant % x", p.line, got, want)
	}
}

func (p *player) act(what string) {
	p.t.Helper()
	switch what {
	case "exchange":
		exchange(p.t, p.f, []byte("ping"))
	case "reset":
		p.f.Rebind()
	default:
		p.t.Fatalf("line %d: no action %q", p.line, what)
	}
}

func (p *player) descriptors(name string) []int {
	byName := map[string]int{"call": p.f.Call, "err": p.f.Err, "kick": p.f.Kick, "memory": p.f.Mem.FD, "socket": p.f.BackendEnd()}
	if name == "" {
		return nil
	}
	fd, ok := byName[name]
	if !ok {
		p.t.Fatalf("line %d: no descriptor %q", p.line, name)
	}
	return []int{fd}
}

func (p *player) bytes(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	if err != nil {
		p.t.Fatalf("line %d: %v", p.line, err)
	}
	return b
}
