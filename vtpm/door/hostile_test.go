// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// A request is answered whatever came before it, and so is an answer found: half
// messages of an asker that was reset, and answers to it.
func TestSurvivesWhatWasBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOf(rapid.OneOf(
			rapid.SliceOf(rapid.Byte()),
			rapid.Map(rapid.StringMatching(`\n?\{"id":"[a-z]{1,3}","op":"echo","body":\{"a":"[\{\}"\\]{0,5}"\}\}\n?`), func(s string) []byte { return []byte(s) }),
			rapid.SampledFrom([][]byte{[]byte("\n{\"id\":\"a\",\"op\":\"echo\",\"body\":"), []byte("\""), []byte("\n{\"id\":\"mine\",\"result\":"), []byte("{\"id\":\"mine\",\"res")}),
		)).Draw(t, "before")
		line, err := ask("mine", "echo", map[string]string{"a": "\n{\"id\":\"mine\",\"op\":\"mad\"}"})
		if err != nil {
			t.Fatal(err)
		}
		stream := append(bytes.Join(before, nil), line...)
		var last request
		for in := newLines(bytes.NewReader(stream), MaxRequest); ; {
			got, err := in.next()
			if err != nil {
				break
			}
			if r, err := parseRequest(got); err == nil {
				last = r
			}
		}
		if last.ID != "mine" || last.Op != "echo" || len(last.Body) == 0 {
			t.Fatalf("the last request is %+v", last)
		}
		answer := reply("mine", 7, nil)
		here, there := net.Pipe()
		go func() {
			newLines(there, MaxRequest).next()
			there.Write(append(bytes.ReplaceAll(bytes.Join(before, nil), []byte("mine"), []byte("other")), answer...))
			there.Close()
		}()
		c := &Client{rw: here, in: newLines(here, MaxAnswer), closed: make(chan struct{})}
		if a, err := c.exchange("mine", line); err != nil || string(a.Result) != "7" {
			t.Fatalf("the answer is %+v, %v", a, err)
		}
	})
}

// No true part of a message is a message: what a reset has cut is not taken for one.
func TestPartsAreNoMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inner := `{"id":"x","op":"y"}`
		line, err := ask("mine", "echo", map[string]any{
			"vm": json.RawMessage(inner), "text": rapid.SampledFrom([]string{inner, inner + "\n", "\\" + inner, rapid.String().Draw(t, "text")}).Draw(t, "which"),
		})
		if err != nil {
			t.Fatal(err)
		}
		line = bytes.TrimSpace(line)
		from := rapid.IntRange(0, len(line)-1).Draw(t, "from")
		to := rapid.IntRange(from+1, len(line)).Draw(t, "to")
		if from > 0 && to < len(line) || from == 0 && to == len(line) {
			return // a reset cuts off a beginning or an end
		}
		if r, err := parseRequest(line[from:to]); err == nil {
			t.Fatalf("%s is the request %+v", line[from:to], r)
		}
	})
}

func TestLinesAreBounded(t *testing.T) {
	const most = 10_000
	long := strings.Repeat("a", most)
	in := newLines(strings.NewReader(long+"a\n\n"+long+"\nb\n"+long+long+"\nc\nrest"), most)
	for _, want := range []string{long, "b", "c"} {
		if got, err := in.next(); err != nil || string(got) != want {
			t.Fatalf("line %.10q of %d bytes, %v, want %.10q", got, len(got), err, want)
		}
	}
	if got, err := in.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last line: %q, %v", got, err)
	}
}

// endless is a line without an end.
type endless struct{ left int }

func (e *endless) Read(b []byte) (int, error) {
	if e.left -= len(b); e.left < 0 {
		return 0, io.EOF
	}
	clear(b)
	return len(b), nil
}

func TestMemoryIsBounded(t *testing.T) {
	const sent = 256 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := newLines(&endless{sent}, MaxRequest).next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16*MaxRequest {
		t.Errorf("%d bytes were allocated for a line without an end", used)
	}
}

func TestUnfitMessages(t *testing.T) {
	for _, line := range []string{
		``, `null`, `7`, `{}`, `[]`, `{"id":"","op":"a"}`, `{"id":"a","op":""}`, `{"id":"a b","op":"c"}`, `{"id":"a","op":"b\n"}`, `{"id":7,"op":"a"}`,
		`{"id":"a","op":"b","more":1}`, `{"id":"a","op":"b"}}`, `{"id":"` + strings.Repeat("a", maxName+1) + `","op":"b"}`, strings.Repeat("[", 100_000),
	} {
		if r, err := parseRequest([]byte(line)); err == nil {
			t.Errorf("%.40s is the request %+v", line, r)
		}
	}
	for _, line := range []string{`{"id":"a"}`, `{"result":1}`, `{"id":"a","result":1,"code":"denied"}`, `{"id":"a","error":"x"}`} {
		if a, err := parseAnswer([]byte(line)); err == nil {
			t.Errorf("%s is the answer %+v", line, a)
		}
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte("\n{\"id\":\"a\",\"op\":\"echo\",\"body\":{}}\n"))
	f.Add([]byte("{\"id\":\"a\",\"op\":\"denied\"}\n{\"id\":"))
	f.Add([]byte("\x00\xff\n\n\n{\"id\":\"a\",\"op\":\"mad\",\"body\":null}\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		last := []byte("\n{\"id\":\"the-last-one\",\"op\":\"echo\",\"body\":{}}\n")
		p := &port{in: bytes.NewReader(append(sent, last...)), answered: make(chan struct{})}
		if err := Serve(t.Context(), p, Caller{}, echo{}); err != nil {
			t.Fatal(err)
		}
		for in := newLines(&p.out, MaxAnswer); ; {
			line, err := in.next()
			if err != nil {
				break
			}
			if _, err := parseAnswer(line); err != nil {
				t.Errorf("%q is no answer: %v", line, err)
			}
		}
	})
}

// port is a channel that ends when the last request was answered.
type port struct {
	in       io.Reader
	out      bytes.Buffer
	answered chan struct{}
	once     sync.Once
}

func (p *port) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	if err != nil {
		<-p.answered
	}
	return n, err
}

func (p *port) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("the-last-one")) {
		p.once.Do(func() { close(p.answered) })
	}
	return p.out.Write(b)
}

func (p *port) Close() error { return nil }

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"id":"a","result":{}}`))
	f.Add([]byte(`{"id":"a","code":"denied","error":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAnswer(line)
		if err != nil {
			return
		}
		again, err := frame(a, MaxAnswer)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := parseAnswer(bytes.TrimSpace(again)); err != nil || b.ID != a.ID || b.Code != a.Code {
			t.Errorf("%q is %+v, and then %+v, %v", line, a, b, err)
		}
	})
}
