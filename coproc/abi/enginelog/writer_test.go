// SPDX-License-Identifier: Apache-2.0

package enginelog

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func newLog(out *bytes.Buffer) *Writer {
	return New(hclog.New(&hclog.LoggerOptions{Output: out, DisableTime: true}))
}

// TestLines: lines keep their level, and a child cannot make its parent hold or print
// one without bound.
func TestLines(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"info made\n", "[INFO]  made\n"},
		{"error bad\nwarn odd\n", "[ERROR] bad\n[WARN]  odd\n"},
		{"libtpms: oops\n", "[WARN]  libtpms: oops\n"},
		{"\n\ninfo x\n", "[INFO]  x\n"},
		{"info\n", "[WARN]  info\n"},
		{"info \xff\n", "[INFO]  ?\n"},
		{"no end", ""},
		{strings.Repeat("a", 3*MaxLine) + "\n", "[WARN]  " + strings.Repeat("a", MaxLine) + "\n"},
	} {
		var out bytes.Buffer
		w := newLog(&out)
		for i := range len(tc.in) {
			w.Write([]byte(tc.in[i : i+1]))
		}
		if out.String() != tc.want {
			t.Errorf("%.20q: log %.40q, want %.40q", tc.in, out.String(), tc.want)
		}
	}
}

// TestFlood: an engine has so many lines in its life, and the last says that there were
// more, whatever it writes between them.
func TestFlood(t *testing.T) {
	var out bytes.Buffer
	w := newLog(&out)
	w.Name("a")
	for range 2 * MaxLines {
		w.Write([]byte("info x\n\n"))
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if n := len(lines); n != MaxLines || !strings.Contains(lines[n-1], "too much") || lines[0] != "[INFO]  x: slot=a" {
		t.Errorf("%d lines, want %d; the first %q, the last %q", n, MaxLines, lines[0], lines[n-1])
	}
}
