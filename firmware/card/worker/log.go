// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// Bounds of what a worker can make its card hold and log.
const (
	maxLogLine  = 1024
	maxLogLines = 200 // in its life
)

// logWriter turns a worker's "level message" lines into log records. What does
// not begin with a level, such as a library's message, is a warning.
type logWriter struct {
	log   hclog.Logger
	slot  atomic.Pointer[string] // name, once there is one
	line  []byte
	lines int
}

// Write implements io.Writer. It never fails, so a worker never blocks on it.
func (w *logWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, tail, whole := bytes.Cut(rest, []byte{'\n'})
		w.line = append(w.line, part[:min(len(part), maxLogLine-len(w.line))]...)
		if whole {
			w.emit()
		}
		rest = tail
	}
	return len(p), nil
}

func (w *logWriter) emit() {
	line := string(bytes.ToValidUTF8(w.line, []byte("?")))
	w.line = w.line[:0]
	if w.lines++; line == "" || w.lines > maxLogLines {
		return
	}
	if w.lines == maxLogLines {
		line = "error worker logs too much: the rest is dropped"
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
