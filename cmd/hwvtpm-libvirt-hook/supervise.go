// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// saidReady is what a supervisor says when its first backend is ready.
const saidReady = "ready"

// restartPause is the time between the end of a backend and the start of the next.
const restartPause = 500 * time.Millisecond

// faceFlags are the flags of the backend that differ between machines, with a space
// between words: there is none in the name of a slot's folder.
func (c config) faceFlags() string {
	flags := "--socket-path " + c.path(socketName) + " --qmp " + c.path(monitorName)
	if c.face == faceEmulator {
		flags = "--tpm-emulator-socket " + c.path(socketName)
	}
	if c.hostd != "" {
		flags += " --hostd " + c.hostd
	}
	if c.hostPCR != "" {
		flags += " --host-pcrs " + c.hostPCR
	}
	return flags
}

// supervise runs the backend until it is told to end, starts it again when it
// dies, and then gives the machine its TPM anew.
func (c config) supervise(ctx context.Context) error {
	log := hclog.New(&hclog.LoggerOptions{Name: "hwvtpm-libvirt-hook", Output: os.Stderr})
	ready := os.NewFile(readyFD, "ready")
	syscall.CloseOnExec(readyFD)
	if err := awaitLeave(os.Stdin); err != nil {
		return err
	}
	ended, err := c.startBackend(ctx)
	if err != nil {
		_, _ = ready.WriteString(err.Error())
		return err
	}
	_, _ = ready.WriteString(saidReady)
	ready.Close()
	for {
		err := <-ended
		if ctx.Err() != nil || err == nil {
			return nil // somebody ended this process, or the backend
		}
		if !mendable(err) {
			return fmt.Errorf("the backend has ended, and would again: %w", err)
		}
		log.Warn("the backend has ended: starting it again", "error", err)
		if ended, err = c.restart(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		if c.face == faceVirtio {
			go c.replug(ctx, log)
		}
	}
}

// awaitLeave waits until the hook has noted this process. If it is killed before, nobody
// would ever end the backend.
func awaitLeave(stdin io.Reader) error {
	if _, err := io.ReadFull(stdin, make([]byte, 1)); err != nil {
		return fmt.Errorf("the hook ended before it had noted its supervisor: %w", err)
	}
	return nil
}

// restart tries to start a backend until it succeeds, or can't.
func (c config) restart(ctx context.Context) (<-chan error, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(restartPause):
		}
		ended, err := c.startBackend(ctx)
		if err == nil || ctx.Err() != nil || !mendable(err) {
			return ended, err
		}
	}
}

func (c config) replug(ctx context.Context, log hclog.Logger) {
	c.ifLost = true
	if err := c.recover(ctx); err != nil {
		log.Error("the machine could not be given its TPM again", "error", err)
		return
	}
	log.Info("the machine has its TPM again")
}

// mendable says whether a backend that ended so may do better next time: its codes
// 2 and 3 say that it won't, and an orderly end is somebody's wish.
func mendable(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() != 2 && exit.ExitCode() != 3
}

// startBackend starts the backend and waits until it is ready. Its end comes on
// the channel.
func (c config) startBackend(ctx context.Context) (<-chan error, error) {
	notify, err := c.listenNotify()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, c.backend, append(strings.Fields(c.faceFlags()),
		"--coproc", c.coproc, "--slot", c.slot, "--slot-key", c.statePath("key"), "--socket-mode", "0660")...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String())
	last := &lastLine{log: os.Stderr}
	cmd.Stderr = last
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime / 2
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("the backend: %w", err), notify.Close())
	}
	ready := make(chan struct{})
	go readStates(notify, sync.OnceFunc(func() { close(ready) }))
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		notify.Close()
		ended <- err
	}()
	select {
	case <-ready:
		return ended, nil
	case err := <-ended:
		return nil, fmt.Errorf("%s (%w)", last, cmp.Or(err, errEnded))
	}
}

// errEnded is the end of a backend that gives no cause.
var errEnded = errors.New("the backend ended before it was ready")

// lastLine passes a program's messages on and keeps the last one. It belongs to one
// exec.Cmd, and may be read when that has ended.
type lastLine struct {
	log  io.Writer
	line []byte
}

// maxLine bounds what lastLine keeps, in bytes.
const maxLine = 1024

// Write implements io.Writer.
func (l *lastLine) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if text := bytes.TrimSpace(line); len(text) > 0 {
			l.line = append(l.line[:0], text[:min(len(text), maxLine)]...)
		}
	}
	return l.log.Write(p)
}

func (l *lastLine) String() string { return string(l.line) }

func (c config) listenNotify() (*net.UnixConn, error) {
	path := c.path("notify.sock")
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listening for the backend: %w", err)
	}
	return conn, nil
}

// readStates calls ready when READY=1 comes (sd_notify(3)), and reads on until the
// socket is closed, lest the backend finds nobody to tell its state.
func readStates(conn *net.UnixConn, ready func()) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			ready()
		}
	}
}
