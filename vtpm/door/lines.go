// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bufio"
	"errors"
	"io"
)

// lines cuts a stream at its line feeds.
type lines struct {
	r    *bufio.Reader
	most int // bytes of a line; longer ones are skipped
}

func newLines(r io.Reader, most int) *lines {
	return &lines{bufio.NewReaderSize(r, 4<<10), most}
}

// next gives the next line that is neither empty nor too long, without its line
// feed. It is the caller's: a channel that rests keeps no large buffer. Errors are
// the stream's; what stands before its end without a line feed is no line.
func (l *lines) next() ([]byte, error) {
	for {
		line, err := l.read()
		if err != nil {
			return nil, err
		}
		if len(line) > 0 {
			return line, nil
		}
	}
}

// read gives one line; nothing of one that is too long.
func (l *lines) read() ([]byte, error) {
	var line []byte
	for skip := false; ; {
		part, err := l.r.ReadSlice('\n')
		end := err == nil
		if end {
			part = part[:len(part)-1]
		} else if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if skip = skip || len(line)+len(part) > l.most; skip {
			line = nil
		} else {
			line = append(line, part...)
		}
		if end {
			return line, nil
		}
	}
}
