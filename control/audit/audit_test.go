// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// newLog is a log of n events, closed, and its head.
func newLog(t *testing.T, n int) (path string, head Head) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(path, Head{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := l.Append(now, Event{Event: "issued", Name: fmt.Sprint(i), Detail: map[string]string{"a": "x\ny"}}); err != nil {
			t.Fatal(err)
		}
	}
	head = l.Head()
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(now, Event{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	return path, head
}

func TestChain(t *testing.T) {
	path, want := newLog(t, 5)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(bytes.NewReader(text), Head{}); err != nil || got != want || got.Seq != 5 {
		t.Fatalf("Verify = %v, %v, want %v", got, err, want)
	}
	lines := strings.SplitAfter(string(text), "\n")
	join := func(l ...string) string { return strings.Join(l, "") }
	for name, bad := range map[string]string{
		"changed":  strings.Replace(string(text), `"name":"2"`, `"name":"9"`, 1),
		"removed":  join(append(append([]string{}, lines[:2]...), lines[3:]...)...),
		"first":    join(lines[1:]...),
		"doubled":  join(lines[0], lines[0], lines[1]),
		"swapped":  join(lines[0], lines[2], lines[1]),
		"garbage":  join(lines[0], "{}\n", lines[1]),
		"not JSON": join(lines[0], "x\n"),
		"long":     join(lines[0], strings.Repeat("x", maxLine+1)),
	} {
		if _, err := Verify(strings.NewReader(bad), Head{}); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v, want ErrBroken", name, err)
		}
	}
	third, err := Verify(strings.NewReader(join(lines[:3]...)), Head{})
	if err != nil || third.Seq != 3 {
		t.Fatalf("Verify of three lines: %v, %v", third, err)
	}
	if _, err := Verify(bytes.NewReader(text), third); err != nil {
		t.Errorf("a log that went on: %v", err)
	}
	if _, err := Verify(strings.NewReader(join(lines[:3]...)), want); !errors.Is(err, ErrBroken) {
		t.Errorf("cut off: %v, want ErrBroken", err)
	}
	if _, err := Verify(bytes.NewReader(text), Head{Seq: 3, Hash: want.Hash}); !errors.Is(err, ErrBroken) {
		t.Errorf("another log: %v, want ErrBroken", err)
	}
}

func TestOpenAgain(t *testing.T) {
	path, head := newLog(t, 3)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"seq":4,"pre`) // a crash in the middle
	f.Close()
	l, err := Open(path, Head{})
	if err != nil || l.Head() != head {
		t.Fatalf("Open: head %v, %v, want %v", l.Head(), err, head)
	}
	if err := l.Append(now, Event{Event: "next"}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if l, err = Open(path, Head{}); err != nil || l.Head().Seq != 4 {
		t.Fatalf("Open: %v", err)
	}
	l.Close()
	if err := os.Truncate(path, 40); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(path, Head{}); err != nil || l.Head() != start {
		t.Errorf("only an unfinished line: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Head{}); !errors.Is(err, ErrBroken) {
		t.Errorf("Open of a broken log: %v", err)
	}
}

// One failure ends the log: what follows would hide it.
func TestFailureStays(t *testing.T) {
	path, _ := newLog(t, 1)
	l, err := Open(path, Head{})
	if err != nil {
		t.Fatal(err)
	}
	l.file.Close()
	first := l.Append(now, Event{Event: "a"})
	if first == nil || !errors.Is(l.Append(now, Event{Event: "b"}), first) {
		t.Errorf("after a failure: %v", first)
	}
	if err := l.Append(now, Event{Event: strings.Repeat("x", maxLine)}); err == nil {
		t.Error("a line too long is written")
	}
}

func TestConcurrent(t *testing.T) {
	path, _ := newLog(t, 0)
	l, err := Open(path, Head{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if err := l.Append(now, Event{Event: "e"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if head, err := Verify(bytes.NewReader(text), Head{}); err != nil || head != l.Head() || head.Seq != 40 {
		t.Errorf("Verify = %v, %v", head, err)
	}
}
