// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// childMark tells a process in the background its descriptor of the pipe on
// which it says that it is ready.
const childMark = "HWVTPM_SWTPM_READY_FD"

// background starts this program again without a terminal and waits until that
// says that it is ready. A Go program can't fork.
func background() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	files := inherited(int(w.Fd()))
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return errors.Join(err, w.Close())
	}
	child, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), childMark+"="+strconv.Itoa(len(files))),
		Files: append(files, w),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("going to the background: %w", err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err == nil {
		return child.Release()
	}
	state, err := child.Wait()
	if err != nil {
		return err
	}
	return fmt.Errorf("the program in the background ended: %s", state)
}

// inherited are the descriptors below limit that this program was started with,
// each at its number.
func inherited(limit int) []*os.File {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for fd := 3; fd < limit; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			files = append(files, nil)
			continue
		}
		files = append(files, os.NewFile(uintptr(fd), "inherited"))
	}
	return files
}

// inBackground says whether this process is the one in the background.
func inBackground(getenv func(string) string) bool { return getenv(childMark) != "" }

// sayReady lets go of whoever started this process: of its wait, its terminal,
// its directory.
func sayReady(getenv func(string) string) error {
	fd, err := strconv.Atoi(getenv(childMark))
	if err != nil {
		return fmt.Errorf("%s: %w", childMark, err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for std := range 3 {
		if err := unix.Dup3(int(null.Fd()), std, 0); err != nil {
			return err
		}
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	pipe := os.NewFile(uintptr(fd), "ready")
	_, err = pipe.Write([]byte{1})
	return errors.Join(err, pipe.Close())
}
