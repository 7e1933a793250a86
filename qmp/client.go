// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/internal/unixsock"
)

// Client is one QMP connection. All methods are safe for concurrent use; Close
// may be called from any goroutine, also while others wait in Execute or Next.
//
// Lock order: writeSem, receiveMu, mu, Subscription.mu.
type Client struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	log  hclog.Logger
	cred *unix.Ucred // nil: unknown

	eventLimit   int
	unplugRetry  time.Duration
	greeting     Greeting      // written once, before greetingDone is closed
	greetingDone chan struct{} // the greeting has arrived
	done         chan struct{} // the connection has ended, err says why
	readerDone   chan struct{} // the reader goroutine has ended

	// writeSem (capacity 1) is held by whoever writes, so that waiting for the
	// turn can be given up. It guards tail, the part of an abandoned command
	// that must still be written before the next one.
	writeSem chan struct{}
	tail     []byte

	// receiveMu makes receive-and-dispatch one step, so that the reader
	// goroutine and Drain keep the stream's order.
	receiveMu sync.Mutex
	lines     lineBuffer
	buf       []byte

	mu      sync.Mutex
	err     error // why the connection ended
	nextID  uint64
	pending map[uint64]chan<- *message
	subs    map[*Subscription]struct{}

	strangerOnce sync.Once
}

// Option changes how a Client works.
type Option func(*Client)

// WithLogger sets the logger. Without it nothing is logged. The client logs at
// most a line or two in the life of a connection.
func WithLogger(l hclog.Logger) Option {
	return func(c *Client) { c.log = l }
}

// WithEventLimit sets how many events each subscription holds before it drops
// its oldest and reports ErrOverflow. Values below 1 mean DefaultEventLimit.
func WithEventLimit(n int) Option {
	return func(c *Client) { c.eventLimit = n }
}

// Dial connects to the QMP server listening on the UNIX socket path and does
// the handshake. QEMU serves one client per monitor socket: while another one
// is connected, or QEMU is stopped, Dial waits until ctx ends.
func Dial(ctx context.Context, path string, opts ...Option) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("qmp: %w", err)
	}
	return New(ctx, conn.(*net.UnixConn), opts...)
}

// New does the handshake on a connected socket: it waits for the greeting and
// leaves capabilities negotiation mode. It takes ownership of conn and closes it on
// error. ctx bounds the handshake only.
func New(ctx context.Context, conn *net.UnixConn, opts ...Option) (*Client, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("qmp: %w", err), conn.Close())
	}
	cred, _ := unixsock.Peer(conn) // who does not know it gets along
	c := &Client{
		conn:         conn,
		raw:          raw,
		log:          hclog.NewNullLogger(),
		cred:         cred,
		greetingDone: make(chan struct{}),
		done:         make(chan struct{}),
		readerDone:   make(chan struct{}),
		writeSem:     make(chan struct{}, 1),
		buf:          make([]byte, receiveSize),
		pending:      make(map[uint64]chan<- *message),
		subs:         make(map[*Subscription]struct{}),
		unplugRetry:  unplugRetry,
	}
	for _, o := range opts {
		o(c)
	}
	if c.eventLimit < 1 {
		c.eventLimit = DefaultEventLimit
	}
	go c.receiveLoop()
	if err := c.handshake(ctx); err != nil {
		_ = c.Close() // err says what went wrong
		return nil, err
	}
	return c, nil
}

// handshake matches the reply of qmp_capabilities by its id like any other, so
// an event in between does no harm.
func (c *Client) handshake(ctx context.Context) error {
	select {
	case <-c.greetingDone:
	case <-c.done:
		return fmt.Errorf("qmp: waiting for greeting: %w", c.Err())
	case <-ctx.Done():
		return fmt.Errorf("qmp: waiting for greeting: %w", ctx.Err())
	}
	return c.Execute(ctx, Command{Execute: "qmp_capabilities"}, nil)
}

// Peer returns the process id of the peer as the kernel recorded it when the
// connection was made (SO_PEERCRED, unix(7)). For a client of a listening socket
// that is the process that called listen(2): QEMU, or whoever gave QEMU a socket
// that already listened, as libvirt does. ok is false if the kernel does not
// know, or the process lives in a PID namespace that is not visible from here.
func (c *Client) Peer() (pid int, ok bool) {
	if c.cred == nil || c.cred.Pid <= 0 {
		return 0, false
	}
	return int(c.cred.Pid), true
}

// Greeting returns what the peer said first.
func (c *Client) Greeting() Greeting { return c.greeting }

// Done is closed when the connection has ended, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns nil while the connection lives, then why it ended. The error
// wraps ErrClosed, ErrDisconnected (with the cause) or ErrProtocol.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection, makes everyone who waits on it return ErrClosed,
// and returns when the reader goroutine has ended and the descriptor is closed.
// It is idempotent and always returns nil.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	<-c.readerDone
	return nil
}

// fail ends the connection with a cause; only the first one counts. It does not
// close the descriptor, since the caller may be using it, but wakes the
// goroutine that does.
func (c *Client) fail(cause error) {
	if !c.setErr(cause) {
		return
	}
	close(c.done)
	_ = c.conn.SetDeadline(longAgo) // fails only if conn is closed: nothing to wake
	c.log.Debug("qmp: connection ended", "cause", cause)
}

// setErr records why the connection ended and says whether it was the first to.
func (c *Client) setErr(cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.err = fmt.Errorf("qmp: %w", cause)
	return true
}

// longAgo is a deadline that makes pending and later I/O return.
var longAgo = time.Unix(1, 0)
