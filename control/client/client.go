// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"hwvtpm/control/ca"
)

const (
	// Timeout bounds a call, whatever its context says.
	Timeout = time.Minute

	maxAnswer = 4 << 20 // bytes; a revocation list of 100,000 certificates has as many
	maxText   = 1 << 10 // bytes of an error's text that are passed on
)

// Config says whom to ask, and as whom.
type Config struct {
	// URL of the server: https://HOST[:PORT], and a path if it is behind another.
	URL string
	// Roots are the authorities of the server's certificate; needed. ReadRoots
	// reads them.
	Roots *x509.CertPool
	// Certificate gives the caller's own TLS certificate when the server asks for
	// one, for each connection; nil means that the caller has none.
	Certificate func() (*tls.Certificate, error)
}

// Client asks a server. Its methods may be called from any goroutine.
type Client struct {
	base *url.URL
	http *http.Client
}

// Error is a request that the server refused.
type Error struct {
	Status  int    // of HTTP; docs/control.md says what each means
	Message string // the server's, one line
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("control server: %s (%d)", e.Message, e.Status)
}

// Temporary says whether the same request may be granted later.
func (e *Error) Temporary() bool {
	return e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError
}

// New makes a Client. It does not connect.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("control server: %w", err)
	case base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("control server: %q is not https://HOST[:PORT]", base.Redacted())
	case cfg.Roots == nil:
		return nil, errors.New("control server: no authority for its certificate is given")
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: cfg.Roots}
	if cfg.Certificate != nil {
		secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cfg.Certificate() }
	}
	return &Client{base, &http.Client{
		Timeout:       Timeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close drops connections that rest. It is idempotent, and the Client can be used
// after it.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// ReadRoots reads a file of certificates (PEM) that are trusted.
func ReadRoots(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, err := ca.ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: there is no certificate", path)
	}
	roots := x509.NewCertPool()
	for _, cert := range certs {
		roots.AddCert(cert)
	}
	return roots, nil
}

// call sends a request, JSON if there is a body, and gives the answer's body.
func (c *Client) call(ctx context.Context, method string, path []string, token string, body any) ([]byte, error) {
	var text io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("control server: %w", err)
		}
		text = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path...).String(), text)
	if err != nil {
		return nil, fmt.Errorf("control server: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("control server: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("control server: %w", err)
	case resp.StatusCode/100 != 2:
		return nil, refusal(resp.StatusCode, answer)
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("control server: an answer of more than %d bytes", maxAnswer)
	}
	return answer, nil
}

// refusal reads what the server says to a request that failed, if it is the server.
func refusal(status int, answer []byte) error {
	var problem struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(answer, &problem) != nil || problem.Error == "" {
		problem.Error = http.StatusText(status)
	}
	text := strings.ToValidUTF8(problem.Error[:min(len(problem.Error), maxText)], "")
	return &Error{status, strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)}
}
