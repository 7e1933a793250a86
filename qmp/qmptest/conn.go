// SPDX-License-Identifier: Apache-2.0

package qmptest

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/unixsock"
)

// Conn is the server's end of one connection. Methods that write return when
// the kernel has taken the bytes, so a client that looks afterwards finds them.
// Writes to a client that has gone are ignored: tests see that elsewhere. All
// methods are safe for concurrent use.
type Conn struct {
	server   *Server
	conn     *net.UnixConn
	chunk    int
	greeting string
	done     chan struct{}

	writeMu sync.Mutex // one message at a time

	closeOnce sync.Once
}

// Reply answers a command with a value.
func (c *Conn) Reply(cmd Command, value any) {
	c.send(map[string]any{"return": value, "id": cmd.ID})
}

// Refuse answers a command with an error.
func (c *Conn) Refuse(cmd Command, class, desc string) {
	c.send(map[string]any{"error": map[string]string{"class": class, "desc": desc}, "id": cmd.ID})
}

// Event sends an event. data may be nil.
func (c *Conn) Event(name string, data any) {
	e := map[string]any{"event": name, "timestamp": map[string]int{"seconds": 1700000000, "microseconds": 42}}
	if data != nil {
		e["data"] = data
	}
	c.send(e)
}

// Raw writes bytes as they are.
func (c *Conn) Raw(p []byte) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for len(p) > 0 {
		part := p
		if c.chunk > 0 && c.chunk < len(p) {
			part = p[:c.chunk]
		}
		if _, err := c.conn.Write(part); err != nil {
			return
		}
		p = p[len(part):]
	}
}

// Done is closed when the connection is closed by either side. A handler that
// wants to stall waits for it.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close closes the connection. Idempotent.
func (c *Conn) Close() {
	c.closeOnce.Do(func() {
		close(c.done)
		_ = c.conn.Close() // nobody is left to tell
	})
}

// send writes a message the way QEMU does, ended by CR LF.
func (c *Conn) send(message any) {
	b, err := json.Marshal(message)
	if err != nil {
		c.server.tb.Errorf("qmptest: message: %v", err)
		return
	}
	c.Raw(append(b, "\r\n"...))
}

// serve reads commands until the connection ends.
func (c *Conn) serve() {
	defer c.Close()
	if c.greeting != "" {
		c.Raw([]byte(c.greeting + "\r\n"))
	}
	var files []*os.File
	var partial []byte
	buf := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(4*64))
	for {
		n, oobn, _, _, err := c.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		files = append(files, c.rights(oob[:oobn])...)
		partial = append(partial, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(partial, []byte("\n"))
			if !ok {
				break
			}
			partial = rest
			c.handle(line, files)
			files = nil
		}
	}
}

// handle records and answers one command. Like QEMU it gives it all the
// descriptors that came since the command before.
func (c *Conn) handle(line []byte, files []*os.File) {
	cmd := Command{Files: files}
	if err := json.Unmarshal(line, &cmd); err != nil {
		c.send(map[string]any{"error": map[string]string{"class": "GenericError", "desc": "JSON parse error"}})
		return
	}
	c.server.record(cmd)(c, cmd)
}

// rights takes ownership of the descriptors in a control message.
func (c *Conn) rights(oob []byte) []*os.File {
	fds, err := unixsock.Rights(oob)
	if err != nil {
		c.server.tb.Errorf("qmptest: %v", err)
	}
	var files []*os.File
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "received")
		c.server.tb.Cleanup(func() { _ = f.Close() }) // may be closed by the test
		files = append(files, f)
	}
	return files
}
