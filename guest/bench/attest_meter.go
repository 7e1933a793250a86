// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxFrame bounds a TPM's commands and responses.
const maxFrame = 4096

// meter stands before a TPM's socket and adds up how long the TPM works.
type meter struct {
	ln   *net.UnixListener
	tpm  string
	done sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[*net.UnixConn]bool
	used  time.Duration
	count int
}

// newMeter serves socket until close, for the TPM behind another one.
func newMeter(socket, tpm string) (*meter, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	m := &meter{ln: ln, tpm: tpm, conns: map[*net.UnixConn]bool{}}
	m.done.Go(m.serve)
	return m, nil
}

func (m *meter) serve() {
	for {
		client, err := m.ln.AcceptUnix()
		if err != nil {
			return
		}
		m.done.Go(func() {
			defer client.Close()
			tpm, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: m.tpm, Net: "unix"})
			if err != nil {
				return
			}
			defer tpm.Close()
			if m.keep(client) {
				defer m.drop(client)
				_ = m.relay(client, tpm) // whoever asked sees that it ends
			}
		})
	}
}

// keep says whether there is still time for a connection.
func (m *meter) keep(c *net.UnixConn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conns == nil {
		return false
	}
	m.conns[c] = true
	return true
}

func (m *meter) drop(c *net.UnixConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
}

// relay carries commands one after the other, as TPMs take them, until one side
// ends.
func (m *meter) relay(client, tpm io.ReadWriter) error {
	for buf := make([]byte, maxFrame); ; {
		cmd, err := readFrame(client, buf)
		if err != nil {
			return err
		}
		begin := time.Now()
		if _, err := tpm.Write(cmd); err != nil {
			return err
		}
		resp, err := readFrame(tpm, buf)
		if err != nil {
			return err
		}
		m.add(time.Since(begin))
		if _, err := client.Write(resp); err != nil {
			return err
		}
	}
}

func (m *meter) add(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += d
	m.count++
}

// total is the time that the TPM has worked so far, and its number of commands.
func (m *meter) total() (time.Duration, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used, m.count
}

// close ends all connections. It is idempotent.
func (m *meter) close() {
	_ = m.ln.Close()
	m.mu.Lock()
	for c := range m.conns {
		_ = c.Close()
	}
	m.conns = nil
	m.mu.Unlock()
	m.done.Wait()
}

// readFrame reads a TPM's command or response by the size in its header (TCG Part
// 3, 5.2: tag, size, code) into buf.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	const header = 10
	if _, err := io.ReadFull(r, buf[:header]); err != nil {
		return nil, err
	}
	size := int64(binary.BigEndian.Uint32(buf[2:]))
	if size < header || size > int64(len(buf)) {
		return nil, errors.New("bench: a frame of an impossible size")
	}
	_, err := io.ReadFull(r, buf[header:size])
	return buf[:size], err
}
