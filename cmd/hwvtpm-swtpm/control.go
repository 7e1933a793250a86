// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// order is the byte order of the control channel.
var order = binary.BigEndian

// request is the number of a control request. Package vtpm/emulator has their
// layouts.
type request uint32

const (
	cmdGetCapability       request = 0x01
	cmdInit                request = 0x02
	cmdShutdown            request = 0x03
	cmdGetTPMEstablished   request = 0x04
	cmdSetLocality         request = 0x05
	cmdHashStart           request = 0x06
	cmdHashData            request = 0x07
	cmdHashEnd             request = 0x08
	cmdCancelTPMCmd        request = 0x09
	cmdStoreVolatile       request = 0x0a
	cmdResetTPMEstablished request = 0x0b
	cmdGetStateBlob        request = 0x0c
	cmdSetStateBlob        request = 0x0d
	cmdStop                request = 0x0e
	cmdGetConfig           request = 0x0f
	cmdSetDataFD           request = 0x10
	cmdSetBufferSize       request = 0x11
	cmdGetInfo             request = 0x12
	cmdLockStorage         request = 0x13
)

// requestNames are as the protocol's header has them, for messages.
var requestNames = [...]string{
	cmdGetCapability: "PTM_GET_CAPABILITY", cmdInit: "PTM_INIT", cmdShutdown: "PTM_SHUTDOWN",
	cmdGetTPMEstablished: "PTM_GET_TPMESTABLISHED", cmdSetLocality: "PTM_SET_LOCALITY",
	cmdHashStart: "PTM_HASH_START", cmdHashData: "PTM_HASH_DATA", cmdHashEnd: "PTM_HASH_END",
	cmdCancelTPMCmd: "PTM_CANCEL_TPM_CMD", cmdStoreVolatile: "PTM_STORE_VOLATILE",
	cmdResetTPMEstablished: "PTM_RESET_TPMESTABLISHED", cmdGetStateBlob: "PTM_GET_STATEBLOB",
	cmdSetStateBlob: "PTM_SET_STATEBLOB", cmdStop: "PTM_STOP", cmdGetConfig: "PTM_GET_CONFIG",
	cmdSetDataFD: "PTM_SET_DATAFD", cmdSetBufferSize: "PTM_SET_BUFFERSIZE", cmdGetInfo: "PTM_GET_INFO",
	cmdLockStorage: "PTM_LOCK_STORAGE",
}

func (r request) String() string { return requestNames[r] }

// resultError is a request that was refused.
type resultError struct {
	request request
	result  uint32
}

func (e *resultError) Error() string {
	return fmt.Sprintf("TPM result from %s: 0x%x", e.request, e.result)
}

// answerTime bounds the wait for an answer. An INIT may wait for a disk.
const answerTime = time.Minute

// control is the client's side of a control channel.
type control struct {
	conn net.Conn
}

// ask sends a request and gives the size bytes of the answer behind its result.
func (c *control) ask(r request, body []byte, size int) ([]byte, error) {
	msg := append(order.AppendUint32(nil, uint32(r)), body...)
	if err := c.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	defer c.conn.SetDeadline(time.Time{})
	if _, err := c.conn.Write(msg); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	return c.answer(r, size)
}

// answer reads an answer: a result, and the rest unless that is an error.
func (c *control) answer(r request, size int) ([]byte, error) {
	head, err := c.read(r, 4)
	if err != nil {
		return nil, err
	}
	if res := order.Uint32(head); res != 0 {
		return nil, &resultError{r, res}
	}
	return c.read(r, size)
}

func (c *control) read(r request, size int) ([]byte, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		return nil, fmt.Errorf("answer to %s: %w", r, err)
	}
	return b, nil
}

// sendFD sends a request that carries a descriptor.
func (c *control) sendFD(r request, fd int) error {
	u, ok := c.conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%s needs a UNIX socket", r)
	}
	if _, _, err := u.WriteMsgUnix(order.AppendUint32(nil, uint32(r)), unix.UnixRights(fd), nil); err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	_, err := c.answer(r, 0)
	return err
}
