// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// ErrBroken is returned for a log whose lines don't follow one from the other.
var ErrBroken = errors.New("audit: the chain is broken")

// Event is what was done. Nothing secret goes into it.
type Event struct {
	Event  string            `json:"event"` // such as "issued", "refused"
	Actor  string            `json:"actor,omitempty"`
	Kind   string            `json:"kind,omitempty"`
	Name   string            `json:"name,omitempty"`
	Detail map[string]string `json:"detail,omitempty"`
}

// line is an event as it stands in the file.
type line struct {
	Seq  uint64    `json:"seq"`
	Prev string    `json:"prev"`
	Time time.Time `json:"time"`
	Event
}

// Head is the end of a log.
type Head struct {
	Seq  uint64 `json:"seq"`  // lines so far
	Hash string `json:"hash"` // SHA-256 of the last line without its newline, hexadecimal
}

var start = Head{Hash: hex.EncodeToString(make([]byte, sha256.Size))}

// maxLine is the longest line that is believed to be one.
const maxLine = 64 << 10

// Verify reads a log to its end. It must go through known, an earlier head, or
// its end was cut off; the zero Head is on the way of every log.
func Verify(r io.Reader, known Head) (Head, error) {
	head := start
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		next, err := head.follow(in.Bytes())
		if err != nil {
			return head, err
		}
		head = next
		if head.Seq == known.Seq && head.Hash != known.Hash {
			return head, fmt.Errorf("%w: line %d is another one than before", ErrBroken, head.Seq)
		}
	}
	if err := in.Err(); err != nil {
		return head, fmt.Errorf("%w: after line %d: %w", ErrBroken, head.Seq, err)
	}
	if head.Seq < known.Seq {
		return head, fmt.Errorf("%w: it ends with line %d, and there were %d", ErrBroken, head.Seq, known.Seq)
	}
	return head, nil
}

// follow is the head after a line, if it fits.
func (h Head) follow(text []byte) (Head, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return h, fmt.Errorf("%w: line %d: %w", ErrBroken, h.Seq+1, err)
	}
	if l.Seq != h.Seq+1 || l.Prev != h.Hash {
		return h, fmt.Errorf("%w: line %d is not the one after line %d", ErrBroken, l.Seq, h.Seq)
	}
	sum := sha256.Sum256(text)
	return Head{Seq: l.Seq, Hash: hex.EncodeToString(sum[:])}, nil
}

// Log appends to a file. Its methods may be called from any goroutine.
type Log struct {
	mu   sync.Mutex // guards what follows
	file *os.File   // nil after Close
	head Head
	err  error // of a line that may be half written: nothing follows it
}

// Open opens a log, 0600, or starts it, and verifies all of it as Verify does. A
// last line without its end, left by a crash before anybody was told, is removed.
func Open(path string, known Head) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	head, err := repair(f, known)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Log{file: f, head: head}, nil
}

// repair cuts an unfinished line off and gives the head of the rest.
func repair(f *os.File, known Head) (Head, error) {
	info, err := f.Stat()
	if err != nil {
		return Head{}, fmt.Errorf("audit: %w", err)
	}
	tail := make([]byte, min(info.Size(), maxLine))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		return Head{}, fmt.Errorf("audit: %w", err)
	}
	keep := len(tail)
	for keep > 0 && tail[keep-1] != '\n' {
		keep--
	}
	if keep < len(tail) {
		if err := f.Truncate(info.Size() - int64(len(tail)-keep)); err != nil {
			return Head{}, fmt.Errorf("audit: %w", err)
		}
	}
	return Verify(f, known)
}

// Append adds an event, on the disk when it returns. After a failure all later
// events fail too: a log with a hole would be worse than none.
func (l *Log) Append(now time.Time, e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return fmt.Errorf("audit: %w", os.ErrClosed)
	}
	if l.err != nil {
		return l.err
	}
	text, err := json.Marshal(line{Seq: l.head.Seq + 1, Prev: l.head.Hash, Time: now.UTC(), Event: e})
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if len(text) >= maxLine {
		return fmt.Errorf("audit: an event of %d bytes", len(text))
	}
	if err := l.write(text); err != nil {
		l.err = fmt.Errorf("audit: %w", err)
		return l.err
	}
	sum := sha256.Sum256(text)
	l.head = Head{Seq: l.head.Seq + 1, Hash: hex.EncodeToString(sum[:])}
	return nil
}

func (l *Log) write(text []byte) error {
	if _, err := l.file.Write(append(text, '\n')); err != nil {
		return err
	}
	return l.file.Sync()
}

// Head gives the end of the log.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Close may be called more than once.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
