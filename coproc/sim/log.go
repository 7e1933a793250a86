// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"

	"github.com/hashicorp/go-hclog"
)

// maxLogLine bounds what a child can make this process hold for one line.
const maxLogLine = 4096

// logWriter turns the worker's "level message" lines into log records. What
// does not begin with a level, such as a library's message, is a warning.
type logWriter struct {
	log  hclog.Logger
	line []byte
}

// Write implements io.Writer.
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
	if line == "" {
		return
	}
	level, msg := hclog.Warn, line
	for _, l := range []hclog.Level{hclog.Info, hclog.Warn, hclog.Error} {
		if name := l.String(); len(line) > len(name) && line[:len(name)+1] == name+" " {
			level, msg = l, line[len(name)+1:]
		}
	}
	w.log.Log(level, msg)
}
