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
	"hwvtpm/coproc/abi/enginelog"
	"hwvtpm/coproc/internal/link"
	"hwvtpm/coproc/internal/slot"
)

// worker is one child process and the link to it. It implements slot.Worker.
type worker struct {
	*link.Link
	cmd      *exec.Cmd
	identity abi.Identity
	exited   chan struct{} // closed when the process was waited for
}

// startWorker starts a child and greets it. The error carries the sentinel
// for what the child found wrong with its state.
func startWorker(cfg *Config) (*worker, error) {
	l, data, ctl, err := link.Pair()
	if err != nil {
		return nil, err
	}
	files := []*os.File{os.NewFile(uintptr(data), "data"), os.NewFile(uintptr(ctl), "control")}
	cmd := exec.Command(cfg.EnginePath, "--state", cfg.Dir, fmt.Sprintf("--generic-curves=%t", cfg.GenericCurves))
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	cmd.Stderr = enginelog.New(cfg.Logger.Named("engine"))
	cmd.WaitDelay = time.Second
	// Its own process group: a terminal's ^C is not for the child, which
	// ends in order when the sockets close.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("start engine: %w", err)
	}
	w := &worker{Link: l, cmd: cmd, exited: make(chan struct{})}
	go func() {
		cmd.Wait() // how it ended does not matter: the link tells when
		close(w.exited)
	}()
	if w.identity, err = slot.Greet(w, SlotName, cfg.StartTimeout); err != nil {
		w.Kill()
		return nil, err
	}
	return w, nil
}

// Identity gives what the child said of itself.
func (w *worker) Identity() abi.Identity { return w.identity }

// Stop ends the worker in order, and by force if it takes too long.
func (w *worker) Stop(timeout time.Duration) error {
	_, err := slot.Call(w, &abi.Submission{Op: abi.OpClose}, timeout)
	w.Link.Close()
	select {
	case <-w.exited:
	case <-time.After(timeout):
		err = errors.Join(err, fmt.Errorf("engine did not exit: %w", coproc.ErrTimeout))
		w.Kill()
	}
	return err
}

// Kill ends the worker by force and waits for it, so that the lock of its
// directory is free again. It tells how the process ended.
func (w *worker) Kill() string {
	w.Link.Close()
	w.cmd.Process.Signal(unix.SIGKILL) // an error means that it is gone
	<-w.exited
	return w.cmd.ProcessState.String()
}
