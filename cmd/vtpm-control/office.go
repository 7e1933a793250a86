// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/control/store"
	"hwvtpm/internal/cli"
)

// office is the operator's door, wherever it is.
type office struct {
	client http.Client
	close  func() error
}

// enter finds a running server by its socket. If none runs, the door is in this
// process, which has the store to itself meanwhile.
func (inv *invocation) enter(ctx context.Context) (*office, error) {
	h := home{inv.dir}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", h.socket())
	if err == nil {
		conn.Close()
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", h.socket())
		}
		return &office{client: http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}, close: func() error { return nil }}, nil
	}
	if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, err
	}
	o, err := h.open(ctx)
	if err != nil {
		return nil, err
	}
	server, err := o.server(inv, hclog.NewNullLogger())
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return &office{client: http.Client{Transport: inProcess{server.Operator()}}, close: o.Close}, nil
}

// inProcess answers requests by a handler in this process.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &answer{header: http.Header{}, status: http.StatusOK}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	p.handler.ServeHTTP(w, r)
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body), Request: r}, nil
}

// answer collects what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// maxAnswer bounds what a server is believed to send.
const maxAnswer = 256 << 20

// ask does one thing at the operator's door: POST with a body, else GET.
func (inv *invocation) ask(ctx context.Context, path string, body any) (_ []byte, err error) {
	o, err := inv.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	method, raw := http.MethodGet, []byte(nil)
	if body != nil {
		method = http.MethodPost
		if raw, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://operator"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	return text, refusal(resp.StatusCode, text)
}

func refusal(status int, text []byte) error {
	if status < 300 {
		return nil
	}
	var p struct{ Error string }
	if json.Unmarshal(text, &p) != nil || p.Error == "" {
		p.Error = http.StatusText(status)
	}
	switch err := errors.New(p.Error); status {
	case http.StatusNotFound:
		return fmt.Errorf("%w (%w)", err, store.ErrNotFound)
	case http.StatusBadRequest:
		return cli.Usagef("%w", err)
	default:
		return err
	}
}

// tell is ask with a typed answer.
func tell[T any](ctx context.Context, inv *invocation, path string, body any) (v T, err error) {
	text, err := inv.ask(ctx, path, body)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	return v, err
}
