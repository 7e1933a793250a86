// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"fmt"
	"io"
	"strings"
)

// logger writes "level message key=value ..." lines, which the parent turns
// into records of its own log. It is this small because every byte of the
// worker is paid once per virtual machine.
type logger struct {
	w io.Writer
}

func (l logger) info(msg string, kv ...any) { l.line("info", msg, kv) }
func (l logger) warn(msg string, kv ...any) { l.line("warn", msg, kv) }
func (l logger) fail(msg string, kv ...any) { l.line("error", msg, kv) }

func (l logger) line(level, msg string, kv []any) {
	var b strings.Builder
	b.WriteString(level)
	b.WriteByte(' ')
	b.WriteString(msg)
	for i := 0; i+1 < len(kv); i += 2 {
		fmt.Fprintf(&b, " %v=%q", kv[i], fmt.Sprint(kv[i+1]))
	}
	b.WriteByte('\n')
	io.WriteString(l.w, b.String()) // nowhere to report a lost log line
}
