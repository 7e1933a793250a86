// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// swtpmTarget is swtpm's bare data socket.
type swtpmTarget struct {
	proc *process
	fd   int
	resp [4096]byte
}

// startSwtpm starts swtpm on the TPM in dir/swtpm. It takes TPM commands at
// once, without the control channel that QEMU uses first.
func startSwtpm(dir string) (proc *process, socket string, err error) {
	socket = filepath.Join(dir, "swtpm.sock")
	state := filepath.Join(dir, "swtpm")
	if err := errors.Join(os.RemoveAll(socket), os.MkdirAll(state, 0o700)); err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	proc, err = start(dir, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init")
	return proc, socket, err
}

func openSwtpm(ctx context.Context, dir string) (target, error) {
	proc, socket, err := startSwtpm(dir)
	if err != nil {
		return nil, err
	}
	return proc.open(ctx, socket, func(c *net.UnixConn) (target, error) { return newSwtpm(proc, c) })
}

// newSwtpm takes the descriptor out of the Go runtime's hands: a blocking read
// is what costs least.
func newSwtpm(proc *process, conn *net.UnixConn) (*swtpmTarget, error) {
	defer conn.Close()
	f, err := conn.File()
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return &swtpmTarget{proc: proc, fd: fd}, nil
}

func (t *swtpmTarget) frame(command []byte) []byte { return command }

func (t *swtpmTarget) exchange(command []byte) ([]byte, error) {
	if _, err := unix.Write(t.fd, command); err != nil {
		return nil, fmt.Errorf("bench: write to swtpm: %w", err)
	}
	for have := 0; ; {
		n, err := unix.Read(t.fd, t.resp[have:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("bench: read from swtpm: %w", err)
		case n == 0:
			return nil, fmt.Errorf("bench: read from swtpm: %w", io.ErrUnexpectedEOF)
		}
		have += n
		if r := tpmResponse(t.resp[:have]); r != nil {
			return r, nil
		}
	}
}

// tpmResponse is the TPM response at the start of b, by its own size (TCG Part
// 3, 5.2), nil if it is not whole.
func tpmResponse(b []byte) []byte {
	if len(b) < 10 {
		return nil
	}
	size := binary.BigEndian.Uint32(b[2:])
	if size < 10 || uint64(size) > uint64(len(b)) {
		return nil
	}
	return b[:size]
}

func (t *swtpmTarget) Send(command []byte) ([]byte, error) { return t.exchange(command) }

func (t *swtpmTarget) pids() []int { return []int{t.proc.cmd.Process.Pid} }

// disconnect lets others have the TPM, which works on. The target is of no more use.
func (t *swtpmTarget) disconnect() { _ = unix.Close(t.fd) }

func (t *swtpmTarget) close() {
	t.disconnect()
	t.proc.stop()
}
