// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// startOf is when the process started, in a form that is good for comparing
// (proc(5), /proc/PID/stat, field 22).
func startOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field, the name, may have spaces and brackets.
	i := bytes.LastIndexByte(text, ')')
	fields := bytes.Fields(text[i+1:])
	if i < 0 || len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	if string(fields[0]) == "Z" {
		return "", fs.ErrNotExist // it has ended and waits for its parent
	}
	return string(fields[19]), nil
}

// writePID notes the supervisor, by its start time too: numbers are used again.
func (d daemon) writePID(pid int) error {
	start, err := startOf(pid)
	if err != nil {
		return fmt.Errorf("looking at the supervisor: %w", err)
	}
	return os.WriteFile(d.statePath("pid"), fmt.Appendf(nil, "%d %s\n", pid, start), 0o644)
}

// open gives a descriptor of the supervisor's process, or -1 if there is none.
func (d daemon) open() (int, error) {
	text, err := os.ReadFile(d.statePath("pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("the process of slot %s: %w", d.slot, err)
	}
	var pid int
	var start string
	if _, err := fmt.Sscan(string(text), &pid, &start); err != nil || pid < 2 {
		return -1, fmt.Errorf("%s names no process: %w", d.statePath("pid"), err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("the process of slot %s: %w", d.slot, err)
	}
	// The descriptor is of the process that is there now; is it the one?
	if now, err := startOf(pid); err != nil || now != start {
		return -1, unix.Close(fd)
	}
	return fd, nil
}

// running implements launcher.
func (d daemon) running() (bool, error) {
	fd, err := d.open()
	if fd >= 0 {
		unix.Close(fd)
	}
	return fd >= 0, err
}

// stop implements launcher.
func (d daemon) stop(ctx context.Context) error {
	fd, err := d.open()
	if err != nil {
		return err
	}
	if fd >= 0 {
		defer unix.Close(fd)
		if err := endProcess(ctx, fd); err != nil {
			return fmt.Errorf("ending the supervisor: %w", err)
		}
	}
	for _, kind := range []string{"pid", "key"} {
		if err := os.Remove(d.statePath(kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// endProcess asks a process to end, and makes it if it does not.
func endProcess(ctx context.Context, fd int) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if err := signalProcess(fd, unix.SIGTERM); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if ended(fd, 100*time.Millisecond) {
			return nil
		}
	}
	if err := signalProcess(fd, unix.SIGKILL); err != nil {
		return err
	}
	if !ended(fd, stopTime) {
		return errors.New("it can't be killed")
	}
	return nil
}

// signalProcess does not mind if the process has ended.
func signalProcess(fd int, sig unix.Signal) error {
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// ended waits for the end of a process.
func ended(fd int, patience time.Duration) bool {
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	return n > 0
}
