// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"testing"
	"time"
)

// hang is when a test gives up.
const hang = time.Minute

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

// echo answers with what it is asked, and with errors of each kind.
type echo struct{ calls chan Caller }

func (e echo) Do(ctx context.Context, caller Caller, op string, body json.RawMessage) (any, error) {
	if e.calls != nil {
		e.calls <- caller
	}
	switch op {
	case "echo":
		return body, nil
	case "nothing":
		return nil, nil
	case "denied":
		return nil, Errorf(CodeDenied, "not you: %w", io.ErrUnexpectedEOF)
	case "inside":
		return nil, io.ErrNoProgress
	case "gone":
		return nil, context.DeadlineExceeded
	case "large":
		return make([]byte, MaxAnswer), nil
	case "mad":
		return func() {}, nil
	}
	return nil, Errorf(CodeNotFound, "no operation is called %.20q", op)
}

// serve answers at one end of a pipe until the test ends, and gives the other end.
func serve(t testing.TB, h Handler) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, there, Caller{VM: "vm-1", UID: -1}, h) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		here.Close()
	})
	return here
}
