// SPDX-License-Identifier: Apache-2.0

package enginelog

import (
	"bytes"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// Bounds of what an engine can make its parent hold and log.
const (
	MaxLine  = 1024 // bytes
	MaxLines = 200  // in its life
)

// Writer turns one engine's lines into log records. What does not begin with a level,
// such as a library's message, is a warning. Write is for one goroutine.
type Writer struct {
	log   hclog.Logger
	slot  atomic.Pointer[string] // name, once there is one
	line  []byte
	lines int
}

// New gives a Writer to log.
func New(log hclog.Logger) *Writer { return &Writer{log: log} }

// Name says whose engine it is from now on. Any goroutine may call it.
func (w *Writer) Name(slot string) { w.slot.Store(&slot) }

// Write implements io.Writer. It never fails, so an engine never blocks on it.
func (w *Writer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, tail, whole := bytes.Cut(rest, []byte{'\n'})
		w.line = append(w.line, part[:min(len(part), MaxLine-len(w.line))]...)
		if whole {
			w.emit()
		}
		rest = tail
	}
	return len(p), nil
}

func (w *Writer) emit() {
	line := string(bytes.ToValidUTF8(w.line, []byte("?")))
	w.line = w.line[:0]
	if line == "" || w.lines >= MaxLines {
		return
	}
	if w.lines++; w.lines == MaxLines {
		line = "error engine logs too much: the rest is dropped"
	}
	level, msg := hclog.Warn, line
	for _, l := range []hclog.Level{hclog.Info, hclog.Warn, hclog.Error} {
		if name := l.String(); len(line) > len(name) && line[:len(name)+1] == name+" " {
			level, msg = l, line[len(name)+1:]
		}
	}
	if slot := w.slot.Load(); slot != nil {
		w.log.Log(level, msg, "slot", *slot)
		return
	}
	w.log.Log(level, msg)
}
