// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	maxHeader      = 4096            // bytes of a request
	maxConnections = 8               // served at a time; more are turned away
	exchange       = 5 * time.Second // for one request and its answer
	acceptPause    = 100 * time.Millisecond
)

// Serve answers GET /metrics on l, which it closes, until ctx ends: then it
// breaks running exchanges off and returns nil. collect writes all families;
// calls of it may overlap. One request is answered on each connection.
func Serve(ctx context.Context, l net.Listener, collect func(*Writer)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	slots := make(chan struct{}, maxConnections)
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("metrics: %w", err)
		case err != nil:
			time.Sleep(acceptPause) // out of descriptors, for example
			continue
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				answer(ctx, c, collect)
			})
		default:
			c.Close()
		}
	}
}

// buffers are what an exchange needs. They are used again, since a process that
// does little else would keep the garbage of many scrapes.
type buffers struct {
	request [maxHeader]byte
	answer  Writer
}

var exchanges = sync.Pool{New: func() any { return new(buffers) }}

// answer serves one connection. Its errors are the peer's and nobody else's.
func answer(ctx context.Context, c net.Conn, collect func(*Writer)) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(exchange))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(0, 1)) })
	defer stop()
	x := exchanges.Get().(*buffers)
	defer exchanges.Put(x)
	status := readRequest(c, x.request[:])
	if status == "" {
		return
	}
	body, kind, allow := []byte(status+"\n"), "text/plain", ""
	switch status {
	case statusOK:
		x.answer.text = x.answer.text[:0]
		collect(&x.answer)
		body, kind = x.answer.Bytes(), ContentType
	case statusMethod:
		allow = "Allow: GET\r\n"
	}
	head := fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n",
		status, kind, len(body), allow)
	parts := net.Buffers{head, body}
	_, _ = parts.WriteTo(c)
}

// Status lines (RFC 9110, section 15).
const (
	statusOK       = "200 OK"
	statusBad      = "400 Bad Request"
	statusNotFound = "404 Not Found"
	statusMethod   = "405 Method Not Allowed"
	statusTooLarge = "431 Request Header Fields Too Large"
)

// readRequest reads the head of a request and decides on the answer. "" means
// that there is nobody to answer.
func readRequest(c net.Conn, buf []byte) (status string) {
	for n := 0; n < len(buf); {
		m, err := c.Read(buf[n:])
		n += m
		if i := bytes.Index(buf[:n], []byte("\r\n\r\n")); i >= 0 {
			return judge(buf[:i])
		}
		if err != nil {
			return ""
		}
	}
	return statusTooLarge
}

// judge reads a request line (RFC 9112, section 3). The fields behind it make no
// difference here.
func judge(head []byte) (status string) {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	parts := bytes.Split(line, []byte(" "))
	if len(parts) != 3 || !bytes.HasPrefix(parts[2], []byte("HTTP/1.")) {
		return statusBad
	}
	path, _, _ := bytes.Cut(parts[1], []byte("?"))
	switch {
	case string(path) != "/metrics":
		return statusNotFound
	case string(parts[0]) != "GET":
		return statusMethod
	}
	return statusOK
}
