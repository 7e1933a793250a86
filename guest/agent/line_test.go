// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// readAll collects the lines of r; a line that was too long is "<long>".
func readAll(t *testing.T, r io.Reader) []string {
	t.Helper()
	lines := newLineReader(r)
	var got []string
	for {
		line, err := lines.next()
		switch {
		case err == nil:
			got = append(got, string(line))
		case errors.Is(err, ErrLineTooLong):
			got = append(got, "<long>")
		case errors.Is(err, io.EOF):
			return got
		default:
			t.Fatalf("next() = %v", err)
		}
	}
}

func TestLineReader(t *testing.T) {
	full := strings.Repeat("x", MaxLine)
	tests := map[string]struct {
		in   string
		want []string
	}{
		"lines":               {"a\nb\n", []string{"a", "b"}},
		"crlf":                {"a\r\nb\r\n", []string{"a", "b"}},
		"empty":               {"\n\n", []string{"", ""}},
		"unfinished line":     {"a\nb", []string{"a"}},
		"longest line":        {full + "\nb\n", []string{full, "b"}},
		"longest line, crlf":  {full + "\r\nb\n", []string{full, "b"}},
		"one byte too long":   {full + "y\nb\n", []string{"<long>", "b"}},
		"two bytes too long":  {full + "yy\nb\n", []string{"<long>", "b"}},
		"many times too long": {strings.Repeat(full, 3) + "\nb\n", []string{"<long>", "b"}},
		"endless line":        {strings.Repeat("x", 3*MaxLine), nil},
		"noise":               {"\x00\xff{\nb\n", []string{"\x00\xff{", "b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := readAll(t, strings.NewReader(tt.in))
			if !cmp.Equal(tt.want, got) {
				t.Errorf("got %d lines that differ from the %d wanted", len(got), len(tt.want))
			}
		})
	}
}

func TestLineReaderSmallReads(t *testing.T) {
	got := readAll(t, iotest.OneByteReader(strings.NewReader("one\ntwo\r\nthree")))
	if diff := cmp.Diff([]string{"one", "two"}, got); diff != "" {
		t.Error(diff)
	}
}

// A reader that never ends a line must not make the buffer grow.
func TestLineReaderBoundsMemory(t *testing.T) {
	lines := newLineReader(io.LimitReader(zeros{}, 64*MaxLine))
	if _, err := lines.next(); !errors.Is(err, io.EOF) {
		t.Fatalf("next() = %v, want EOF", err)
	}
	if cap(lines.b) > 4*MaxLine {
		t.Errorf("buffer grew to %d bytes for lines of at most %d", cap(lines.b), MaxLine)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestParseRequest(t *testing.T) {
	tests := map[string]struct {
		line string
		ok   bool
	}{
		"request":      {`{"session":"s","id":1,"op":"run","args":{"argv":["ls"]}}`, true},
		"no args":      {`{"session":"s","id":1,"op":"run"}`, true},
		"bare hello":   {`{"op":"hello"}`, true},
		"no op":        {`{"session":"s","id":1}`, false},
		"no session":   {`{"id":1,"op":"run"}`, false},
		"no id":        {`{"session":"s","op":"run"}`, false},
		"negative id":  {`{"session":"s","id":-1,"op":"run"}`, false},
		"empty":        {``, false},
		"null":         {`null`, false},
		"array":        {`[{"op":"hello"}]`, false},
		"cut off":      {`{"session":"s","id":1,"op":"r`, false},
		"two in one":   {`{"op":"hello"}{"op":"hello"}`, false},
		"kernel noise": {`[    1.234567] random: crng init done`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parseRequest([]byte(tt.line))
			if (err == nil) != tt.ok {
				t.Errorf("parseRequest() = %v, want ok %v", err, tt.ok)
			}
			if err != nil && !errors.Is(err, errNoMessage) {
				t.Errorf("parseRequest() = %v, want errNoMessage", err)
			}
		})
	}
}

func TestParseReply(t *testing.T) {
	tests := map[string]struct {
		line string
		ok   bool
	}{
		"result":                {`{"session":"s","id":1,"result":{}}`, true},
		"error":                 {`{"session":"s","id":1,"error":"no"}`, true},
		"hello":                 {`{"hello":{"session":"s","boot_id":"b","kernel":"k"}}`, true},
		"hello without session": {`{"hello":{"kernel":"k"}}`, false},
		"hello of wrong type":   {`{"hello":7}`, false},
		"no id":                 {`{"session":"s","result":{}}`, false},
		"no session":            {`{"id":1,"result":{}}`, false},
		"an echoed request":     {`{"op":"hello"}`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := parseReply([]byte(tt.line)); (err == nil) != tt.ok {
				t.Errorf("parseReply() = %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestEncodeLine(t *testing.T) {
	b, err := encodeLine(request{Session: "s", ID: 1, Op: "write", Args: []byte(`{"data":"bGluZQo="}`)})
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("\n")); n != 1 || b[len(b)-1] != '\n' {
		t.Errorf("encodeLine() = %q, want one newline at the end", b)
	}
	if _, err := encodeLine(reply{Error: strings.Repeat("x", MaxLine)}); !errors.Is(err, ErrLineTooLong) {
		t.Errorf("encodeLine(too long) = %v, want ErrLineTooLong", err)
	}
}

// The largest result of an operation fits a line.
func TestLargestResultFits(t *testing.T) {
	out := bytes.Repeat([]byte{0xff}, MaxOutput)
	for name, v := range map[string]any{
		"run":  Result{Stdout: out, Stderr: out, Truncated: true},
		"read": Data{Data: out},
	} {
		raw, text := execute(t.Context(), fixed(v), nil)
		if text != "" {
			t.Fatalf("%s: %s", name, text)
		}
		if _, err := encodeLine(reply{Session: "s", ID: 1, Result: raw}); err != nil {
			t.Errorf("%s: encodeLine() = %v", name, err)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"op\":\"hello\"}\n{\"session\":\"s\",\"id\":1,\"op\":\"run\",\"args\":{}}\n"))
	f.Add([]byte("{\"hello\":{\"session\":\"s\"}}\r\n{\"session\":\"s\",\"id\":1,\"error\":\"x\"}\n"))
	f.Add([]byte("\n\x00\xff[{\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, line := range readAll(t, bytes.NewReader(in)) {
			if strings.Contains(line, "\n") {
				t.Fatalf("line with a newline: %q", line)
			}
			// What was accepted survives being sent again.
			if r, err := parseRequest([]byte(line)); err == nil {
				again, err := encodeLine(r)
				if err != nil {
					t.Fatalf("encodeLine(%+v) = %v", r, err)
				}
				if _, err := parseRequest(bytes.TrimSuffix(again, []byte("\n"))); err != nil {
					t.Fatalf("parseRequest(%q) = %v", again, err)
				}
			}
			if r, err := parseReply([]byte(line)); err == nil && r.Hello == nil && r.ID == 0 {
				t.Fatalf("reply without id: %q", line)
			}
		}
	})
}
