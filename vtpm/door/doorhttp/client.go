// SPDX-License-Identifier: Apache-2.0

package doorhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"hwvtpm/vtpm/door"
)

// Client asks at a host's HTTPS door. Its methods may be called from any goroutine.
type Client struct {
	base *url.URL
	http *http.Client
}

// NewClient makes a Client for https://HOST[:PORT]. The configuration says whom it
// believes, and has TLS 1.3 made the oldest version.
func NewClient(base string, secure *tls.Config) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("door: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("door: %q is not https://HOST[:PORT]", u.Redacted())
	}
	secure = secure.Clone()
	secure.MinVersion = tls.VersionTLS13
	return &Client{u.JoinPath(Path), &http.Client{
		Transport: &http.Transport{TLSClientConfig: secure, ForceAttemptHTTP2: true},
		// A token is for this host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close drops connections that rest. It is idempotent.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Call is as door.Client's; but a context that ends takes only this call with it.
func (c *Client) Call(ctx context.Context, op string, body, result any) error {
	status, text, err := c.post(ctx, op, body)
	switch {
	case err != nil:
		return fmt.Errorf("door: %s: %w", op, err)
	case status != http.StatusOK:
		return refusal(op, status, text)
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("door: %s: the answer can't be read: %w", op, err)
	}
	return nil
}

func (c *Client) post(ctx context.Context, op string, body any) (status int, text []byte, err error) {
	var sent []byte
	if body != nil {
		if sent, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	if len(sent) > door.MaxRequest {
		return 0, nil, fmt.Errorf("a request of %d bytes, more than %d", len(sent), door.MaxRequest)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath(op).String(), bytes.NewReader(sent))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(io.LimitReader(resp.Body, door.MaxAnswer+1)); err == nil && len(text) > door.MaxAnswer {
		err = errors.New("the answer is too large")
	}
	return resp.StatusCode, text, err
}

// refusal reads an error, of a host or of something on the way to it.
func refusal(op string, status int, text []byte) error {
	var p problem
	if json.Unmarshal(text, &p) != nil || statuses[p.Code] != status {
		p = problem{door.CodeUnavailable, fmt.Sprintf("what answers is no host's door: %d %s", status, http.StatusText(status))}
	}
	e := door.Errorf(p.Code, "%s", p.Error)
	e.Op, e.Message = op, door.Message(e)
	return e
}
