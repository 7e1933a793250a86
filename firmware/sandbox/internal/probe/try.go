// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// attempts are what a worker may not do, each as an attacker in the worker would
// do it: by a raw system call. They return the error of the kernel, if they
// return at all.
var attempts = map[string]func(pid int) error{
	"open a file": func(int) error {
		_, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
		return err
	},
	"make a file": func(int) error {
		_, err := unix.Open("/dev/shm/hwvtpm-probe", unix.O_CREAT|unix.O_RDWR, 0o600)
		return err
	},
	"open by openat2": func(int) error {
		_, err := unix.Openat2(unix.AT_FDCWD, "/etc/passwd", &unix.OpenHow{})
		return err
	},
	"open the own memory": func(int) error {
		_, err := unix.Open("/proc/self/mem", unix.O_RDWR, 0)
		return err
	},
	"write to descriptor 4":           func(int) error { _, err := unix.Write(4, []byte("x")); return err },
	"read a link":                     func(int) error { _, err := unix.Readlink("/proc/self/exe", make([]byte, 64)); return err },
	"remove a file":                   func(int) error { return unix.Unlink("/dev/shm/hwvtpm-probe") },
	"rename a file":                   func(int) error { return unix.Rename("/dev/shm/a", "/dev/shm/b") },
	"make a folder":                   func(int) error { return unix.Mkdir("/dev/shm/hwvtpm-probe", 0o700) },
	"change the folder":               func(int) error { return unix.Chdir("/") },
	"change the root":                 func(int) error { return unix.Chroot("/") },
	"mount":                           func(int) error { return unix.Mount("none", "/mnt", "tmpfs", 0, "") },
	"socket":                          func(int) error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err },
	"socket of netlink":               func(int) error { _, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0); return err },
	"pair of sockets":                 func(int) error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
	"connect":                         func(int) error { return unix.Connect(3, &unix.SockaddrUnix{Name: "@hwvtpm-probe"}) },
	"set a socket's options":          func(int) error { return unix.SetsockoptInt(3, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<16) },
	"listen":                          func(int) error { return unix.Listen(3, 1) },
	"start a program":                 func(int) error { return unix.Exec("/bin/true", []string{"true"}, nil) },
	"fork":                            func(int) error { return raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0) },
	"new namespaces":                  func(int) error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"trace a process":                 func(pid int) error { return unix.PtraceAttach(pid) },
	"signal a process":                func(pid int) error { return unix.Kill(pid, 0) },
	"signal a thread":                 func(pid int) error { return unix.Tgkill(pid, pid, 0) },
	"queue a signal":                  func(pid int) error { return raw(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), 0, 0) },
	"signal by pidfd":                 func(pid int) error { return raw(unix.SYS_PIDFD_OPEN, uintptr(pid), 0, 0) },
	"signals for others":              func(pid int) error { _, err := unix.FcntlInt(3, unix.F_SETOWN, pid); return err },
	"read its memory":                 func(pid int) error { return raw(unix.SYS_PROCESS_VM_READV, uintptr(pid), 0, 0) },
	"write its memory":                func(pid int) error { return raw(unix.SYS_PROCESS_VM_WRITEV, uintptr(pid), 0, 0) },
	"set its limits":                  func(pid int) error { return unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) },
	"raise own limits":                func(int) error { return unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1024}, nil) },
	"become dumpable":                 func(int) error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	"change the user":                 func(int) error { return raw(unix.SYS_SETUID, 0, 0, 0) },
	"BPF":                             func(int) error { return raw(unix.SYS_BPF, 0, 0, 0) },
	"io_uring":                        func(int) error { return raw(unix.SYS_IO_URING_SETUP, 1, 0, 0) },
	"userfaultfd":                     func(int) error { return raw(unix.SYS_USERFAULTFD, 0, 0, 0) },
	"keyring":                         func(int) error { return raw(unix.SYS_ADD_KEY, 0, 0, 0) },
	"perf events":                     func(int) error { return raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0) },
	"load a module":                   func(int) error { return raw(unix.SYS_INIT_MODULE, 0, 0, 0) },
	"kexec":                           func(int) error { return raw(unix.SYS_KEXEC_LOAD, 0, 0, 0) },
	"another filter":                  func(int) error { return raw(unix.SYS_SECCOMP, 0, 0, 0) },
	"memory as a file":                func(int) error { _, err := unix.MemfdCreate("probe", 0); return err },
	"executable memory":               func(int) error { return mapCode() },
	"memory of the host":              func(int) error { return mapData(unix.MAP_PRIVATE) },
	"shared memory of no file":        func(int) error { return mapData(unix.MAP_SHARED) },
	"memory made code":                func(int) error { return makeCode() },
	"inject into a tty":               func(int) error { return unix.IoctlSetInt(0, unix.TIOCSTI, 0) },
	"a system call of 32 bit numbers": func(int) error { return raw(0x4000_0000|unix.SYS_GETPID, 0, 0, 0) },
}

func raw(nr, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func mapCode() error {
	_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	return err
}

// mapData takes as much memory as no worker may have.
func mapData(flags int) error {
	_, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_ANON)
	return err
}

func makeCode() error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
}

// try writes what an attempt came to. An attempt that the filter does not let
// return writes nothing.
func try(name string, pid int) error {
	if name == "list" {
		for n := range attempts {
			fmt.Println(n)
		}
		return nil
	}
	f, ok := attempts[name]
	if !ok {
		return fmt.Errorf("unknown attempt %q", name)
	}
	switch err := f(pid); {
	case err == nil:
		fmt.Print("done")
	case errors.Is(err, os.ErrPermission):
		fmt.Print("denied")
	default:
		fmt.Print(err)
	}
	return nil
}
