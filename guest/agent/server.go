// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// maxRunning bounds the operations that run at the same time.
const maxRunning = 16

// Handler executes one operation. args is the request's JSON, nil if it had
// none; the value returned is marshalled into the reply. Handlers run each in
// their own goroutine.
type Handler func(ctx context.Context, args json.RawMessage) (any, error)

// Server is the guest's side of the channel.
type Server struct {
	Hello    Hello              // Session must be set
	Handlers map[string]Handler // by operation; OpHello is built in
	Logger   hclog.Logger       // nil: none
}

// Serve announces the agent and executes requests until the stream or ctx ends.
// It returns after the running handlers have. The end of ctx is only seen when
// the stream's Read returns.
func (s *Server) Serve(ctx context.Context, rw io.ReadWriter) error {
	log := s.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	out := &lineWriter{w: rw}
	// The newline ends whatever a guest's earlier life left on the line.
	if err := out.raw([]byte("\n")); err != nil {
		return err
	}
	if err := out.message(reply{Hello: &s.Hello}); err != nil {
		return err
	}
	slots := make(chan struct{}, maxRunning)
	lines := newLineReader(rw)
	for ctx.Err() == nil {
		line, err := lines.next()
		if errors.Is(err, ErrLineTooLong) {
			log.Warn("skipped a line", "error", err)
			continue
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("agent: read: %w", err)
		}
		req, err := parseRequest(line)
		if err != nil {
			continue
		}
		if err := s.dispatch(ctx, out, req, slots, &running); err != nil {
			return err
		}
	}
	return nil
}

// dispatch answers req now or starts its handler. An error is the stream's.
func (s *Server) dispatch(ctx context.Context, out *lineWriter, req request, slots chan struct{}, running *sync.WaitGroup) error {
	if req.Op == OpHello {
		return out.message(reply{Hello: &s.Hello})
	}
	if req.Session != s.Hello.Session {
		return nil // meant for an earlier life of this guest
	}
	answer := reply{Session: req.Session, ID: req.ID}
	h, ok := s.Handlers[req.Op]
	if !ok {
		answer.Error = "no such operation"
		return out.message(answer)
	}
	select {
	case slots <- struct{}{}:
	default:
		answer.Error = "too many operations at once"
		return out.message(answer)
	}
	running.Go(func() {
		defer func() { <-slots }()
		answer.Result, answer.Error = execute(ctx, h, req.Args)
		// A stream that cannot be written to ends Serve by its reads.
		_ = out.message(answer)
	})
	return nil
}

func execute(ctx context.Context, h Handler, args json.RawMessage) (json.RawMessage, string) {
	v, err := h(ctx, args)
	if err != nil {
		return nil, err.Error()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Sprintf("marshal the result: %v", err)
	}
	return b, ""
}

// lineWriter lets several goroutines write whole lines.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) message(r reply) error {
	b, err := encodeLine(r)
	if errors.Is(err, ErrLineTooLong) {
		b, err = encodeLine(reply{Session: r.Session, ID: r.ID, Error: "result too long"})
	}
	if err != nil {
		return err
	}
	return l.raw(b)
}

func (l *lineWriter) raw(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.w.Write(b); err != nil {
		return fmt.Errorf("agent: write: %w", err)
	}
	return nil
}
