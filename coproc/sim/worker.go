// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// worker is one child process and the link to it.
type worker struct {
	*link
	cmd      *exec.Cmd
	identity abi.Identity
	exited   chan struct{} // closed when the process was waited for
}

// startWorker starts a child and greets it. The error carries the sentinel
// for what the child found wrong with its state.
func startWorker(cfg *Config) (*worker, error) {
	l, data, ctl, err := newLink()
	if err != nil {
		return nil, err
	}
	files := []*os.File{os.NewFile(uintptr(data), "data"), os.NewFile(uintptr(ctl), "control")}
	cmd := exec.Command(cfg.EnginePath, "--state", cfg.Dir, fmt.Sprintf("--generic-curves=%t", cfg.GenericCurves))
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	cmd.Stderr = &logWriter{log: cfg.Logger.Named("engine")}
	cmd.WaitDelay = time.Second
	// Its own process group: a terminal's ^C is not for the child, which
	// ends in order when the sockets close.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("start engine: %w", err)
	}
	w := &worker{link: l, cmd: cmd, exited: make(chan struct{})}
	go func() {
		cmd.Wait() // how it ended does not matter: the link tells when
		close(w.exited)
	}()
	if err := w.greet(cfg.StartTimeout); err != nil {
		w.kill()
		return nil, err
	}
	return w, nil
}

// greet identifies both sides to each other.
func (w *worker) greet(timeout time.Duration) error {
	hello := abi.AppendHello(nil, abi.Hello{Min: abi.MinVersion, Max: abi.Version})
	c, err := w.call(&abi.Submission{Op: abi.OpIdentify, Payload: hello}, timeout)
	if err != nil {
		return fmt.Errorf("greet engine: %w", err)
	}
	if c.Status != abi.StatusOK {
		return &coproc.Error{Op: "identify", Slot: SlotName, Status: c.Status,
			Err: fmt.Errorf("%w: %q", coproc.StatusError(c.Status), c.Payload)}
	}
	id, err := abi.ParseIdentity(c.Payload)
	if err != nil {
		return err
	}
	if id.Version != abi.Version || id.MaxPayload < coproc.MaxTransfer || id.Slots != 1 {
		return fmt.Errorf("engine offers version %d, %d slots, %d bytes: %w",
			id.Version, id.Slots, id.MaxPayload, coproc.ErrUnsupported)
	}
	w.identity = id
	return nil
}

// call sends a submission and waits for its completion.
func (w *worker) call(sub *abi.Submission, timeout time.Duration) (abi.Completion, error) {
	if err := w.send(sub); err != nil {
		return abi.Completion{}, fmt.Errorf("send: %w", err)
	}
	return w.receive(sub, timeout)
}

// stop ends the worker in order, and by force if it takes too long.
func (w *worker) stop(timeout time.Duration) error {
	_, err := w.call(&abi.Submission{Op: abi.OpClose}, timeout)
	w.link.close()
	select {
	case <-w.exited:
	case <-time.After(timeout):
		err = errors.Join(err, fmt.Errorf("engine did not exit: %w", coproc.ErrTimeout))
		w.kill()
	}
	return err
}

// kill ends the worker by force and waits for it, so that the lock of its
// directory is free again.
func (w *worker) kill() {
	w.link.close()
	w.cmd.Process.Signal(unix.SIGKILL) // an error means that it is gone
	<-w.exited
}
