// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"sync"
	"testing"

	"hwvtpm/internal/cli"
)

const (
	getRandom = "\x80\x01\x00\x00\x00\x0c\x00\x00\x01\x7b\x00\x20"
	startup   = "\x80\x01\x00\x00\x00\x0c\x00\x00\x01\x44\x00\x00"
)

// reply is what the daemon's TPM answers to its nth command.
func reply(n byte) string {
	return "\x80\x01\x00\x00\x00\x0e\x00\x00\x00\x00\x00\x00\x00" + string(rune(n))
}

func TestRaw(t *testing.T) {
	r := newRig(t)
	r.must("slot create a")
	// The first command is TPM2_Startup, from raw.
	if got := r.run(getRandom+getRandom, "raw --slot a --flush off"); got.code != cli.ExitOK || got.out != reply(2)+reply(3) {
		t.Fatalf("raw: %+v", got)
	}
	// The next call goes on in the same run: without another.
	if got := r.run(getRandom, "raw --slot a --flush off"); got.out != reply(4) {
		t.Errorf("raw again: %+v", got)
	}
	// Another run is a power cycle.
	if got := r.run(getRandom, "raw --slot a --run-id x --flush off"); got.out != reply(2) {
		t.Errorf("raw with another run: %+v", got)
	}
	var starts int
	for _, cmd := range r.Card.Slot("a").Commands() {
		if string(cmd) == startup {
			starts++
		}
	}
	if starts != 2 {
		t.Errorf("TPM2_Startup was sent %d times, want 2", starts)
	}
}

func TestRawFlushes(t *testing.T) {
	r := newRig(t)
	r.must("slot create a")
	if got := r.run(getRandom, "raw --slot a"); got.code != cli.ExitOK || got.out != reply(2) {
		t.Fatalf("raw: %+v", got)
	}
	cmds := r.Card.Slot("a").Commands()
	last := string(cmds[len(cmds)-1])
	if want := "\x80\x01\x00\x00\x00\x16\x00\x00\x01\x7a\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00\x00\x40"; last != want {
		t.Errorf("the last command is %x, want a question for transient objects", last)
	}
}

func TestRawErrors(t *testing.T) {
	r := newRig(t)
	r.must("slot create a")
	r.Card.Add("b", [32]byte{1})
	r.must("slot create locked")
	r.must("slot lock locked")
	for _, tc := range []struct {
		stdin, line string
		code        int
		says        string
	}{
		{"", "raw --slot a", cli.ExitOK, ""},
		{getRandom[:11], "raw --slot a", cli.ExitFailure, "middle of a command"},
		{getRandom[:3], "raw --slot a", cli.ExitFailure, "middle of a command"},
		{"tpm2_getrandom 8\n", "raw --slot a", cli.ExitFailure, "no TPM command"},
		{"\x80\x01\x00\x00\x00\x09aaaa", "raw --slot a", cli.ExitFailure, "9 bytes"},
		{"", "raw --slot none", exitNotFound, "no slot of this name"},
		{"", "raw --slot b", exitDenied, "no access key"},
		{"", "raw --slot b --key " + r.keys + "/a.key", exitDenied, "not the access key"},
		{"", "raw --slot locked", cli.ExitFailure, "locked"},
	} {
		if got := r.run(tc.stdin, tc.line); got.code != tc.code || !strings.Contains(got.err, tc.says) {
			t.Errorf("vtpmctl %s: %+v, want exit code %d and %q", tc.line, got, tc.code, tc.says)
		}
	}
}

// gate is an input that ends when it is told to.
type gate struct {
	open, reading chan struct{}
	once          sync.Once
}

func (g *gate) Read([]byte) (int, error) {
	g.once.Do(func() { close(g.reading) })
	<-g.open
	return 0, io.EOF
}

func TestRawInUse(t *testing.T) {
	r := newRig(t)
	r.must("slot create a")
	hold := make(chan result)
	in := &gate{open: make(chan struct{}), reading: make(chan struct{})}
	go func() { hold <- r.with(in, "raw --slot a") }()
	<-in.reading
	if got := r.run("", "raw --slot a"); got.code != exitInUse {
		t.Errorf("raw of a slot in use: %+v, want exit code 5", got)
	}
	close(in.open)
	if got := <-hold; got.code != cli.ExitOK {
		t.Errorf("the first raw: %+v", got)
	}
}
