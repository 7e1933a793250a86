// SPDX-License-Identifier: Apache-2.0

package tpmlink

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// ErrClosed: the Link was closed.
var ErrClosed = errors.New("link to the TPM is closed")

// idleTime is how long a socket stays open without a command: its TPM may serve one
// client at a time, and others want to have theirs.
const idleTime = 100 * time.Millisecond

// Forms tells the addresses that there are, for messages.
const Forms = "device:/dev/..., swtpm:PATH or swtpm:HOST:PORT"

// Link leads to a TPM. All methods may be called from any goroutine; commands take
// turns. After an error the next command gets a new connection: an answer that comes
// late is not to be taken for its own, and a resource manager (/dev/tpmrm0) drops
// what the broken one had loaded.
type Link struct {
	dial   func() (transport.TPMCloser, error)
	shared bool // the connection keeps others out

	mu     sync.Mutex // guards what follows, and is held while the TPM works
	conn   transport.TPMCloser
	idle   *time.Timer
	closed bool
}

var _ transport.TPMCloser = (*Link)(nil)

// Check reports what is wrong with an address as such.
func Check(address string) error {
	_, err := parse(address)
	return err
}

// Open opens a TPM: "device:/dev/tpmrm0", or, where it takes raw commands from a
// stream as swtpm does, "swtpm:PATH" or "swtpm:HOST:PORT". Other programs may use the
// TPM too, a device through the kernel's resource manager, and a socket in between:
// see Release.
func Open(address string) (*Link, error) {
	l, err := parse(address)
	if err != nil {
		return nil, err
	}
	if err := l.connect(); err != nil {
		return nil, err
	}
	if l.shared {
		l.idle = time.AfterFunc(idleTime, l.Release)
	}
	return l, nil
}

func parse(address string) (*Link, error) {
	if path, ok := strings.CutPrefix(address, "device:"); ok && strings.HasPrefix(path, "/") {
		return &Link{dial: func() (transport.TPMCloser, error) { return linuxtpm.Open(path) }}, nil
	}
	at, ok := strings.CutPrefix(address, "swtpm:")
	if !ok || at == "" {
		return nil, fmt.Errorf("TPM address %q is not %s", address, Forms)
	}
	network := "tcp"
	if strings.HasPrefix(at, "/") {
		network = "unix"
	} else if _, _, err := net.SplitHostPort(at); err != nil {
		return nil, fmt.Errorf("TPM address %q is not %s: %w", address, Forms, err)
	}
	return &Link{shared: true, dial: func() (transport.TPMCloser, error) {
		return dialStream(network, at)
	}}, nil
}

// connect is called with mu held, or by Open.
func (l *Link) connect() (err error) {
	l.conn, err = l.dial()
	return err
}

// Send implements transport.TPM. A TPM that makes a key may take many seconds.
func (l *Link) Send(cmd []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if l.conn == nil {
		if err := l.connect(); err != nil {
			return nil, err
		}
	}
	rsp, err := l.conn.Send(cmd)
	if err != nil {
		l.disconnectLocked()
	} else if l.idle != nil {
		l.idle.Reset(idleTime)
	}
	return rsp, err
}

// Release lets others at a TPM that serves one client at a time, until the next
// command. Without it they wait until there was none for a moment. Objects and
// sessions stay in the TPM.
func (l *Link) Release() {
	if !l.shared {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disconnectLocked()
}

func (l *Link) disconnectLocked() (err error) {
	if l.conn != nil {
		err = l.conn.Close()
		l.conn = nil
	}
	return err
}

// Close ends the connection once the command under way has its answer. It is
// idempotent.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.idle != nil {
		l.idle.Stop()
	}
	return l.disconnectLocked()
}
