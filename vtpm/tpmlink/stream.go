// SPDX-License-Identifier: Apache-2.0

package tpmlink

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	sendTimeout = time.Minute // for one command, and for those before it

	headerSize  = 10
	maxResponse = 4096
)

// stream is a TPM that takes commands from a stream, one after the other.
type stream struct{ net.Conn }

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
