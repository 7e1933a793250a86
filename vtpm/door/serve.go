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
	"sync"
	"sync/atomic"
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
	// others the caller is told their Code only, so the handler logs them. ctx ends
	// when the caller has gone.
	Do(ctx context.Context, caller Caller, op string, body json.RawMessage) (any, error)
}

// Serve answers the requests of a channel, one after the other, until it ends or
// ctx does, and closes it. Then it returns nil; an error is the channel's. The context of
// an operation ends with the channel: who has gone waits for nothing.
//
// To see that, the channel is read while an operation is under way. What comes meanwhile
// waits, up to mostAhead requests with a body of MaxRequest bytes in all; the end of a
// channel with more in it is seen when there is room again. Close of rw must end a Read
// that waits; Serve returns when it has.
func Serve(ctx context.Context, rw io.ReadWriteCloser, caller Caller, h Handler) error {
	var reader sync.WaitGroup
	defer reader.Wait()
	defer rw.Close()
	defer context.AfterFunc(ctx, func() { _ = rw.Close() })()
	present, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	w := &waiting{requests: make(chan request, mostAhead), room: make(chan struct{}, 1)}
	reader.Go(func() { leave(w.read(present, rw)) })
	for {
		select {
		case req := <-w.requests:
			w.took(req)
			if present.Err() != nil {
				continue // nobody is left to be answered
			}
			result, err := h.Do(present, caller, req.Op, req.Body)
			if _, err := rw.Write(reply(req.ID, result, err)); err != nil && present.Err() == nil {
				return ended(ctx, err)
			}
		case <-present.Done():
			return ended(ctx, context.Cause(present))
		}
	}
}

// mostAhead is how many requests of a channel may wait.
const mostAhead = 64

// waiting are requests that have come while another is under way.
type waiting struct {
	requests chan request
	bytes    atomic.Int64  // of their bodies
	room     chan struct{} // holds one token when a request was taken
}

// read reads requests until the channel ends, or ctx does while there is no room. The
// error is never nil.
func (w *waiting) read(ctx context.Context, rw io.Reader) error {
	for in := newLines(rw, MaxRequest); ; {
		line, err := in.next()
		if err != nil {
			return err
		}
		req, err := parseRequest(line)
		if err != nil {
			continue // half a message, or none: docs of the package
		}
		select {
		case w.requests <- req:
		case <-ctx.Done():
			return ctx.Err()
		}
		for full := w.bytes.Add(int64(len(req.Body))) >= MaxRequest; full; full = w.bytes.Load() >= MaxRequest {
			select {
			case <-w.room:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// took gives a request's room back.
func (w *waiting) took(req request) {
	w.bytes.Add(-int64(len(req.Body)))
	select {
	case w.room <- struct{}{}:
	default: // it will be seen
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
