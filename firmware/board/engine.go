// SPDX-License-Identifier: Apache-2.0

package board

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// Engine describes workers that are processes: the program hwvtpm-engine, which
// holds one TPM.
type Engine struct {
	Path     string // of the program
	StateDir string // of the slot
	Log      io.Writer
}

// closeGrace is how long an engine may take to end in order.
const closeGrace = 5 * time.Second

// Start starts an engine. It is a Config.Start.
func (e Engine) Start() (Worker, error) {
	data, err := socketPair()
	if err != nil {
		return nil, err
	}
	ctl, err := socketPair()
	if err != nil {
		unix.Close(data[0])
		unix.Close(data[1])
		return nil, err
	}
	files := []*os.File{os.NewFile(uintptr(data[1]), "data"), os.NewFile(uintptr(ctl[1]), "control")}
	cmd := exec.Command(e.Path, "--state", e.StateDir)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = files // descriptors 3 and 4: firmware.DefaultDataFD, DefaultControlFD
	cmd.Stderr = e.Log
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	for _, f := range files {
		f.Close()
	}
	p := &process{cmd: cmd, data: data[0], ctl: ctl[0], exited: make(chan struct{})}
	if err != nil {
		unix.Close(p.data)
		unix.Close(p.ctl)
		return nil, fmt.Errorf("start engine: %w", err)
	}
	go func() {
		cmd.Wait() // how it ended does not matter: the socket tells when
		close(p.exited)
	}()
	return p, nil
}

func socketPair() ([2]int, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("socketpair: %w", err)
	}
	return p, nil
}

// process is a worker. Its data socket is read by the one goroutine that calls
// Receive, which also closes it.
type process struct {
	cmd    *exec.Cmd
	data   int
	exited chan struct{}

	mu    sync.Mutex // guards what follows
	ctl   int
	ended bool
}

// Send hands over one submission.
func (p *process) Send(msg []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return io.ErrClosedPipe
	}
	for {
		// The socket has room: there is one submission at a time.
		err := unix.Sendto(p.data, msg, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Receive waits for a completion.
func (p *process) Receive(b []byte) (int, error) {
	for {
		n, err := unix.Read(p.data, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			p.shut()
			unix.Close(p.data)
		}
		return n, err
	}
}

// Cancel asks for the end of a command. A full channel has a cancel already.
func (p *process) Cancel(seq uint64) {
	msg := abi.AppendControl(make([]byte, 0, abi.ControlSize), abi.Control{Op: abi.ControlCancel, Arg: seq})
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		unix.Sendto(p.ctl, msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
}

// shut ends both sockets, which ends Receive and the engine.
func (p *process) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		unix.Shutdown(p.data, unix.SHUT_RDWR)
		unix.Close(p.ctl)
	}
}

// Close ends the engine in order.
func (p *process) Close() {
	p.shut()
	select {
	case <-p.exited:
	case <-time.After(closeGrace):
		p.Kill()
	}
}

// Kill ends the engine by force.
func (p *process) Kill() {
	p.cmd.Process.Signal(unix.SIGKILL) // an error means that it is gone
	p.shut()
	<-p.exited
}
