// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var be = binary.BigEndian

// errResponse: the TPM answered with bytes that are no response to the command.
var errResponse = errors.New("malformed response")

// Numbers of TCG TPM 2.0 Part 2: sections 6.9, 6.5.2, 7.4 and 6.12.
const (
	headerSize    = 10
	tagNoSessions = 0x8001
	tagSessions   = 0x8002

	rsPW          = 0x40000009
	rhOwner       = 0x40000001
	rhEndorsement = 0x4000000b
	rhPlatform    = 0x4000000c

	suClear = 0x0000
)

// maxResponse is the room that the TPM wants for a response, in bytes.
const maxResponse = 4096

// call is one command. Each of the first auths handles is authorized by the
// empty password, which is what a new TPM's hierarchies have.
type call struct {
	name    string
	code    uint32
	handles []uint32
	auths   int
	params  []byte
}

// bytes lays a command out (Part 1, "Command/Response Structure"). The two
// parts in brackets are there if there are authorizations:
//
//	 0     2      6     10          [        4  ][ 9 each        ]
//	+-----+------+-----+-----------+------------+----------------+--------+
//	| tag | size | code| handles...| area size  | empty password | params |
//	+-----+------+-----+-----------+------------+----------------+--------+
func (c *call) bytes() []byte {
	b := be.AppendUint16(nil, tagNoSessions)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, c.code)
	for _, h := range c.handles {
		b = be.AppendUint32(b, h)
	}
	if c.auths > 0 {
		be.PutUint16(b, tagSessions)
		b = be.AppendUint32(b, uint32(9*c.auths))
		for range c.auths {
			b = be.AppendUint32(b, rsPW)
			b = append(b, 0, 0, 0, 0, 0) // no nonce, no attribute, no password
		}
	}
	b = append(b, c.params...)
	be.PutUint32(b[2:], uint32(len(b)))
	return b
}

// do runs a command and returns what follows the header of its response, valid
// until the next command. The error for a response code is an *Error.
func (p *provisioner) do(c call) ([]byte, error) {
	n, _, err := p.tpm.Process(0, c.bytes(), p.resp[:])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	if n < headerSize || n > len(p.resp) || be.Uint32(p.resp[2:]) != uint32(n) {
		return nil, fmt.Errorf("%s: %w", c.name, errResponse)
	}
	if rc := be.Uint32(p.resp[6:]); rc != 0 {
		return nil, &Error{Command: c.name, Code: rc}
	}
	return p.resp[headerSize:n], nil
}

// reader takes a response apart. A read behind the end gives zeros and makes
// err say so.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return make([]byte, n)
	}
	head := r.b[:n]
	r.b = r.b[n:]
	return head
}

func (r *reader) u8() uint8     { return r.take(1)[0] }
func (r *reader) u16() uint16   { return be.Uint16(r.take(2)) }
func (r *reader) u32() uint32   { return be.Uint32(r.take(4)) }
func (r *reader) sized() []byte { return r.take(int(r.u16())) } // TPM2B

func (r *reader) err(command string) error {
	if r.short {
		return fmt.Errorf("%s: %w", command, errResponse)
	}
	return nil
}
