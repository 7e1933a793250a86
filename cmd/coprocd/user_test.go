// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// runAs makes a process another user's.
func runAs(who *unix.Ucred) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.Uid, Gid: who.Gid}}
}

// asUser runs f in a thread whose effective user is another. A socket is connected
// with the credentials of the thread that does it, so f must not leave that to
// another goroutine.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Of this thread alone, by the raw system call.
	set := func(uid int) {
		t.Helper()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
	}
	set(uid)
	defer set(0)
	f()
}
