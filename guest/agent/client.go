// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// helloInterval is how often an agent that has not been heard of is asked for
// its hello: it may have said it before anybody listened.
const helloInterval = 2 * time.Second

// Client is the host's side of the channel to one guest. Its methods may be
// called from any goroutine. It lives over the guest's resets.
type Client struct {
	conn io.ReadWriteCloser
	log  hclog.Logger
	done chan struct{}

	writeMu sync.Mutex // serialises whole lines on conn

	mu      sync.Mutex // guards the fields below
	hello   Hello
	news    chan struct{} // closed and replaced when hello changes
	gone    bool          // the guest said that it goes down: hello is stale
	nextID  uint64
	pending map[uint64]chan reply
	err     error // why the client ended
}

// Dial connects to the UNIX socket of the guest's serial port.
func Dial(path string, logger hclog.Logger) (*Client, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return NewClient(conn, logger), nil
}

// NewClient takes over conn and starts to listen. A nil logger means none.
func NewClient(conn io.ReadWriteCloser, logger hclog.Logger) *Client {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	c := &Client{
		conn:    conn,
		log:     logger,
		done:    make(chan struct{}),
		news:    make(chan struct{}),
		pending: make(map[uint64]chan reply),
		// A late answer to a client that was here before must match nothing.
		nextID: rand.Uint64() >> 1,
	}
	go c.readLoop()
	go c.askLoop()
	return c
}

// Close ends the client; calls in progress return ErrClosed. It is idempotent.
func (c *Client) Close() error {
	c.end(ErrClosed)
	<-c.done
	return nil
}

// Done is closed when the client has ended, by Close or with its socket.
func (c *Client) Done() <-chan struct{} { return c.done }

// WaitHello returns the hello of the guest's present life. It waits for one if
// the guest has not come up yet, or has said that it goes down.
func (c *Client) WaitHello(ctx context.Context) (Hello, error) {
	return c.waitBoot(ctx, 0)
}

// WaitBoot waits for a life of the guest that is younger than prev.
func (c *Client) WaitBoot(ctx context.Context, prev Hello) (Hello, error) {
	return c.waitBoot(ctx, prev.Boot)
}

func (c *Client) waitBoot(ctx context.Context, after int) (Hello, error) {
	for {
		c.mu.Lock()
		hello, news, gone := c.hello, c.news, c.gone
		c.mu.Unlock()
		if hello.Boot > after && !gone {
			return hello, nil
		}
		select {
		case <-news:
		case <-c.done:
			return Hello{}, c.cause()
		case <-ctx.Done():
			return Hello{}, fmt.Errorf("agent: waiting for the guest: %w", context.Cause(ctx))
		}
	}
}

// Call has the guest execute op with args (marshalled; nil for none) and stores
// the result in result (nil: dropped). It waits for the guest to be up. Errors:
// *OpError (the agent's answer), ErrRestarted, ErrClosed, the context's. The
// context does not interrupt the writing of a request, which blocks only if the
// guest has not read the port for some hundred kilobytes; Close does.
func (c *Client) Call(ctx context.Context, op string, args, result any) error {
	hello, err := c.WaitHello(ctx)
	if err != nil {
		return err
	}
	req := request{Session: hello.Session, Op: op}
	if args != nil {
		if req.Args, err = json.Marshal(args); err != nil {
			return fmt.Errorf("agent: %s: %w", op, err)
		}
	}
	answer, err := c.exchange(ctx, req)
	if err != nil {
		return fmt.Errorf("agent: %s: %w", op, err)
	}
	if answer.Error != "" {
		return &OpError{Op: op, Message: answer.Error}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("agent: %s: result: %w", op, err)
	}
	return nil
}

func (c *Client) exchange(ctx context.Context, req request) (reply, error) {
	ch, err := c.expect(&req)
	if err != nil {
		return reply{}, err
	}
	defer c.forget(req.ID)
	if err := c.write(req); err != nil {
		return reply{}, err
	}
	select {
	case r, ok := <-ch:
		if !ok {
			return reply{}, ErrRestarted
		}
		return r, nil
	case <-c.done:
		return reply{}, c.cause()
	case <-ctx.Done():
		return reply{}, context.Cause(ctx)
	}
}

// expect gives req its id and a place for the answer: a channel that gets it,
// or is closed when the guest restarts.
func (c *Client) expect(req *request) (chan reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if req.Session != c.hello.Session {
		return nil, ErrRestarted
	}
	c.nextID++
	req.ID = c.nextID
	ch := make(chan reply, 1)
	c.pending[req.ID] = ch
	return ch, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

func (c *Client) write(req request) error {
	b, err := encodeLine(req)
	if err != nil {
		return err
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if _, err := c.conn.Write(b); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return nil
}

// readLoop ends with the socket, and ends the client.
func (c *Client) readLoop() {
	defer close(c.done)
	lines := newLineReader(c.conn)
	for {
		line, err := lines.next()
		if errors.Is(err, ErrLineTooLong) {
			c.log.Warn("skipped a line from the guest", "error", err)
			continue
		}
		if err != nil {
			c.end(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
		r, err := parseReply(line)
		if err != nil {
			c.log.Debug("skipped a line from the guest", "error", err, "bytes", len(line))
			continue
		}
		c.receive(r)
	}
}

func (c *Client) receive(r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Hello != nil {
		c.helloLocked(*r.Hello)
		return
	}
	ch, ok := c.pending[r.ID]
	if !ok || r.Session != c.hello.Session {
		return
	}
	delete(c.pending, r.ID)
	ch <- r
}

func (c *Client) helloLocked(h Hello) {
	if h.Session == c.hello.Session {
		return // an answer to askLoop
	}
	h.Boot = c.hello.Boot + 1
	c.hello, c.gone = h, false
	for id, ch := range c.pending {
		close(ch)
		delete(c.pending, id)
	}
	close(c.news)
	c.news = make(chan struct{})
	c.log.Info("guest is up", "kernel", h.Kernel, "boot", h.Boot, "uptime", h.Uptime)
}

// askLoop asks for a hello as long as none was heard.
func (c *Client) askLoop() {
	tick := time.NewTicker(helloInterval)
	defer tick.Stop()
	for {
		c.mu.Lock()
		heard, news := c.hello.Boot > 0, c.news
		c.mu.Unlock()
		if heard {
			return
		}
		// A failed write is also the end of the reads, which report it.
		_ = c.write(request{Op: OpHello})
		select {
		case <-news:
			return
		case <-c.done:
			return
		case <-tick.C:
		}
	}
}

// markGone says that the guest with this session is on its way down.
func (c *Client) markGone(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hello.Session == session {
		c.gone = true
	}
}

func (c *Client) end(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	_ = c.conn.Close() // unblocks readLoop
}

func (c *Client) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
