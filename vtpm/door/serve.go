// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// Caller is who asks, as far as the channel proves it.
type Caller struct {
	VM  string // whose channel it is, or empty
	UID int    // of the process at the other end of a UNIX socket, or -1
}

// Handler does what is asked. It is called by one goroutine for each channel.
type Handler interface {
	// Do does op and returns what is to be marshalled as the answer's result. The
	// body is the caller's word; Decode reads it. An Error is sent as it is; of
	// others the caller is told their Code only, so the handler logs them.
	Do(ctx context.Context, caller Caller, op string, body json.RawMessage) (any, error)
}

// Serve answers the requests of a channel, one after the other, until it ends or
// ctx does, and closes it. Then it returns nil; an error is the channel's.
func Serve(ctx context.Context, rw io.ReadWriteCloser, caller Caller, h Handler) error {
	defer rw.Close()
	defer context.AfterFunc(ctx, func() { _ = rw.Close() })()
	for in := newLines(rw, MaxRequest); ; {
		line, err := in.next()
		if err != nil {
			return ended(ctx, err)
		}
		req, err := parseRequest(line)
		if err != nil {
			continue // half a message, or none: docs of the package
		}
		result, err := h.Do(ctx, caller, req.Op, req.Body)
		if _, err := rw.Write(reply(req.ID, result, err)); err != nil {
			return ended(ctx, err)
		}
	}
}

// reply makes an answer's line. What can't be sent is answered with an error.
func reply(id string, result any, err error) []byte {
	if err == nil {
		var text json.RawMessage
		if text, err = json.Marshal(result); err == nil {
			var line []byte
			if line, err = frame(answer{ID: id, Result: text}, MaxAnswer); err == nil {
				return line
			}
		}
	}
	line, err := frame(answer{ID: id, Code: Code(err), Error: Message(err)}, MaxAnswer)
	if err != nil {
		return nil // not for two short texts
	}
	return line
}

// ended makes the end of a channel none of its errors.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return fmt.Errorf("door: %w", err)
}
