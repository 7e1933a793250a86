// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi/enginelog"
	"hwvtpm/firmware/wire"
)

// Process is a worker. One goroutine receives; the other methods may be called
// by any.
type Process struct {
	cmd     *exec.Cmd
	channel *os.File // the card's end of the supervisor channel
	raw     syscall.RawConn
	log     *enginelog.Writer
	exited  chan struct{} // closed when the process was waited for
}

// ErrDescriptor: a worker sent a descriptor, which none has to.
var ErrDescriptor = errors.New("worker sent a descriptor")

// start starts a worker with a user and group id, or the card's own if it is
// negative. With report it logs what its host does not let it have.
func start(engine string, uid int, report bool, log hclog.Logger) (*Process, error) {
	ours, theirs, err := wire.NewChannel()
	if err != nil {
		return nil, err
	}
	// The runtime's poller waits for it, and no thread does.
	unix.SetNonblock(ours, true)
	p := &Process{channel: os.NewFile(uintptr(ours), "supervisor channel"), exited: make(chan struct{})}
	end := os.NewFile(uintptr(theirs), "supervisor channel")
	defer end.Close()
	if p.raw, err = p.channel.SyscallConn(); err != nil {
		p.channel.Close()
		return nil, err
	}
	p.cmd = exec.Command(engine, "--worker")
	if uid >= 0 {
		p.cmd.Args = append(p.cmd.Args, "--own-user")
	}
	if report {
		p.cmd.Args = append(p.cmd.Args, "--report")
	}
	p.cmd.Env = []string{}
	p.cmd.Dir = "/"
	p.cmd.ExtraFiles = []*os.File{end} // descriptor wire.SupervisorFD
	p.log = enginelog.New(log)
	p.cmd.Stderr = p.log
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = attributes(uid)
	if err := p.cmd.Start(); err != nil {
		p.channel.Close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	limit(p.PID())
	go func() {
		p.cmd.Wait() // how it ended: Exited, InOrder
		close(p.exited)
	}()
	return p, nil
}

// attributes put a worker into a process group of its own, since a terminal's
// signals are for the card, and under its user id.
func attributes(uid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if uid >= 0 {
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{}}
	}
	return a
}

// limit sets limits that a worker cannot raise. It sets these and more by itself,
// before it is told anything; if the card may, they hold from its first moment on.
func limit(pid int) {
	unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}, nil)
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Name says for whose slot the worker logs from now on.
func (p *Process) Name(slot string) { p.log.Name(slot) }

// Send sends a message with descriptors, which stay the caller's. It never blocks:
// a worker that lets its channel fill up is not one to wait for.
func (p *Process) Send(msg []byte, fds ...int) error {
	var err error
	cerr := p.raw.Control(func(fd uintptr) { err = wire.Send(int(fd), msg, fds...) })
	return errors.Join(cerr, err)
}

// Receive waits for a message. io.EOF: the worker is gone, or the channel closed.
func (p *Process) Receive(b []byte) (int, error) {
	var n int
	var fds []int
	var err error
	rerr := p.raw.Read(func(fd uintptr) bool {
		n, fds, err = wire.Receive(int(fd), b)
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case rerr != nil:
		return 0, io.EOF // closed by us
	case len(fds) > 0:
		wire.CloseAll(fds)
		return 0, ErrDescriptor
	}
	return n, err
}

// Close closes the channel, which tells the worker to exit at once.
func (p *Process) Close() { p.channel.Close() }

// Kill ends the worker by force. It does not wait.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // an error means that it is gone
	p.channel.Close()
}

// Exited is closed when the process is no more.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// InOrder says whether the worker exited with code 0.
//
// Preconditions: Exited is closed.
func (p *Process) InOrder() bool { return p.cmd.ProcessState != nil && p.cmd.ProcessState.Success() }

// Ending says how the worker ended.
//
// Preconditions: Exited is closed.
func (p *Process) Ending() string { return p.cmd.ProcessState.String() }
