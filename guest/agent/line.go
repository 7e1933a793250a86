// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// MaxLine bounds a message in both directions, without its newline. It holds
// the output of one command ([MaxOutput], twice) in base64.
const MaxLine = 1 << 20

// lineReader cuts a stream into lines of bounded length.
type lineReader struct {
	r *bufio.Reader
	b []byte
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 16<<10)}
}

// next returns the next line without its end (LF or CRLF). It is valid until
// the next call. A line that is too long is skipped to its end and reported as
// ErrLineTooLong, after which reading goes on; other errors are the stream's. An
// unfinished line at the end of the stream is dropped.
func (l *lineReader) next() ([]byte, error) {
	l.b = l.b[:0]
	tooLong := false
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.b)+len(part) > MaxLine+2 {
			tooLong = true
		}
		if !tooLong {
			l.b = append(l.b, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		line := bytes.TrimSuffix(bytes.TrimSuffix(l.b, []byte("\n")), []byte("\r"))
		if tooLong || len(line) > MaxLine {
			return nil, ErrLineTooLong
		}
		return line, nil
	}
}

// encodeLine turns a message into one line with its newline.
func encodeLine(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxLine {
		return nil, ErrLineTooLong
	}
	return append(b, '\n'), nil
}
