// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hang bounds what only a hang makes slow.
const hang = 60 * time.Second

// peer plays QEMU.
type peer struct {
	testing.TB
	control *net.UnixConn
	data    *os.File // nil: none
}

// dialPeer connects to a server's socket, which is there a moment before the
// server listens.
func dialPeer(t testing.TB, path string) *peer {
	t.Helper()
	for end := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			return newPeer(t, c)
		}
		if !errors.Is(err, unix.ECONNREFUSED) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func newPeer(t testing.TB, c *net.UnixConn) *peer {
	p := &peer{TB: t, control: c}
	t.Cleanup(p.hangUp)
	return p
}

// hangUp closes both channels.
func (p *peer) hangUp() {
	p.control.Close()
	p.closeData()
}

func (p *peer) closeData() {
	if p.data != nil {
		p.data.Close()
		p.data = nil
	}
}

// words makes a request.
func words(cmd command, rest ...uint32) []byte {
	b := order.AppendUint32(nil, uint32(cmd))
	for _, w := range rest {
		b = order.AppendUint32(b, w)
	}
	return b
}

// send sends on the control channel, with descriptors.
func (p *peer) send(b []byte, fds ...int) {
	p.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := p.control.WriteMsgUnix(b, oob, nil); err != nil {
		p.Fatalf("sending % x: %v", b, err)
	}
}

// answer reads an answer, or nil if the server has hung up.
func (p *peer) answer() []byte {
	p.Helper()
	return p.read(p.control)
}

func (p *peer) read(from interface {
	io.Reader
	SetReadDeadline(time.Time) error
}) []byte {
	p.Helper()
	if err := from.SetReadDeadline(time.Now().Add(hang)); err != nil {
		p.Fatal(err)
	}
	b := make([]byte, 8192)
	n, err := from.Read(b)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	if err != nil {
		p.Fatalf("reading an answer: %v", err)
	}
	return b[:n]
}

// ask sends a request and reads its answer.
func (p *peer) ask(b []byte, fds ...int) []byte {
	p.Helper()
	p.send(b, fds...)
	return p.answer()
}

// result is ask for the result alone.
func (p *peer) result(b []byte, fds ...int) result {
	p.Helper()
	a := p.ask(b, fds...)
	if len(a) < 4 {
		p.Fatalf("the answer to % x is % x", b, a)
	}
	return result(order.Uint32(a))
}

// openData makes a data channel and returns the result of SET_DATAFD.
func (p *peer) openData() result {
	p.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.Fatal(err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		p.Fatal(err)
	}
	ours := os.NewFile(uintptr(pair[0]), "data")
	res := p.result(words(cmdSetDataFD), pair[1])
	unix.Close(pair[1])
	if res != resOK {
		ours.Close()
		return res
	}
	p.closeData()
	p.data = ours
	return res
}

// execute sends a TPM command and reads the response, or nil if the channel is
// closed.
func (p *peer) execute(cmd []byte) []byte {
	p.Helper()
	if _, err := p.data.Write(cmd); err != nil {
		return nil
	}
	return p.read(p.data)
}

// rc is execute for the response code alone.
func (p *peer) rc(cmd []byte) uint32 {
	p.Helper()
	resp := p.execute(cmd)
	if !whole(resp) {
		p.Fatalf("the response to % x is % x", cmd, resp)
	}
	return codeOf(resp)
}

// TPM commands.
var (
	readClock = tpmCommand(0x181)
	startup   = tpmCommand(0x144, 0, 0)
	getRandom = tpmCommand(0x17b, 0, 8)
	selfTest  = tpmCommand(0x143, 1)
	// readPCR is TPM2_PCR_Read of PCR 8 in SHA-256.
	readPCR = tpmCommand(0x17e, 0, 0, 0, 1, 0, 0x0b, 3, 0, 1, 0)
)

func tpmCommand(code uint32, rest ...byte) []byte {
	b := order.AppendUint16(nil, tagNoSessions)
	b = order.AppendUint32(b, uint32(tpmHeader+len(rest)))
	return append(order.AppendUint32(b, code), rest...)
}

// extendPCR is TPM2_PCR_Extend of PCR 8 in SHA-256 with an empty password.
func extendPCR() []byte {
	b := order.AppendUint16(nil, 0x8002)
	b = append(b, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 8)           // header, PCR
	b = append(b, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0)            // password session
	return append(append(b, 0, 0, 0, 1, 0, 0x0b), make([]byte, 32)...) // one digest
}

// pcrValue is the digest in a response to readPCR.
func pcrValue(resp []byte) []byte { return resp[len(resp)-32:] }
