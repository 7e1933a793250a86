// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"bytes"
	"fmt"
)

// MaxLine is the longest message accepted from the peer, in bytes without its
// line feed. QEMU's longest known reply, query-qmp-schema, is 0.2 MB; 2 MiB
// leaves one decimal order. Decoded JSON takes up to 40 times its text, so that is what
// bounds the memory that a bad peer can make us need.
const MaxLine = 2 << 20

// keepLine is the largest reassembly buffer kept between messages.
const keepLine = 256 << 10

// lineBuffer cuts a byte stream into lines. An unfinished line stays buffered.
// The zero value is ready. Not safe for concurrent use.
type lineBuffer struct {
	partial []byte
}

// feed appends p to the stream and calls handle for each line that p ends,
// without its line feed; lines of white space only are skipped. The slice given
// to handle is valid until handle returns. The first error ends feed.
func (b *lineBuffer) feed(p []byte, handle func(line []byte) error) error {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		segment := p
		if end >= 0 {
			segment = p[:end]
		}
		if len(b.partial)+len(segment) > MaxLine {
			return fmt.Errorf("%w: line longer than %d bytes", ErrProtocol, MaxLine)
		}
		if end < 0 {
			b.partial = append(b.partial, p...)
			return nil
		}
		p = p[end+1:]
		if err := b.finish(segment, handle); err != nil {
			return err
		}
	}
	return nil
}

// finish hands out the buffered part plus segment as one line.
func (b *lineBuffer) finish(segment []byte, handle func(line []byte) error) error {
	line := segment
	if len(b.partial) > 0 {
		line = append(b.partial, segment...)
		b.partial = line[:0]
		if cap(line) > keepLine {
			b.partial = nil
		}
	}
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return nil
	}
	return handle(line)
}

// pending says whether an unfinished line is buffered.
func (b *lineBuffer) pending() bool { return len(b.partial) > 0 }
