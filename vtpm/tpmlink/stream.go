// SPDX-License-Identifier: Apache-2.0

package tpmlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

const (
	dialTimeout = 10 * time.Second
	dialAgain   = 5 * time.Millisecond
	sendTimeout = time.Minute // for one command, and for those before it

	headerSize  = 10
	maxResponse = 4096
)

// stream is a TPM that takes commands from a stream, one after the other.
type stream struct{ net.Conn }

// dialStream connects. A UNIX socket whose queue is full, and swtpm's holds but one
// or two that wait, does not let a non-blocking connect wait: connect(2), EAGAIN.
func dialStream(network, address string) (transport.TPMCloser, error) {
	for deadline := time.Now().Add(dialTimeout); ; time.Sleep(dialAgain) {
		conn, err := net.DialTimeout(network, address, dialTimeout)
		if err == nil {
			return &stream{conn}, nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return nil, err
		}
	}
}

// Send implements transport.TPM.
func (s *stream) Send(cmd []byte) ([]byte, error) {
	if err := s.SetDeadline(time.Now().Add(sendTimeout)); err != nil {
		return nil, err
	}
	if _, err := s.Write(cmd); err != nil {
		return nil, err
	}
	rsp := make([]byte, headerSize, maxResponse)
	if _, err := io.ReadFull(s.Conn, rsp); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(rsp[2:])
	if size < headerSize || size > maxResponse {
		return nil, fmt.Errorf("TPM response of %d bytes", size)
	}
	rsp = rsp[:size]
	_, err := io.ReadFull(s.Conn, rsp[headerSize:])
	return rsp, err
}
