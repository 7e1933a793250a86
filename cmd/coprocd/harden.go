// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// harden keeps the card's key out of core dumps, other processes and swap, and
// what this process was started with out of its workers. What cannot be had
// without privilege is only logged.
func harden(log hclog.Logger) error {
	// What a launcher leaves open has no close-on-exec flag.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keeping descriptors from workers (Linux 5.11 or newer is needed): %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	// A core_pattern that is a pipe does not care for the limit. This also
	// closes /proc/PID/mem to other processes of the same user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	// Every thread has this flag of its own. Go cannot reach them all in a
	// binary with cgo in it, which this is not meant to be.
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errors.Is(errno, unix.ENOTSUP) {
		log.Warn("new privileges are not given up: the program was built with cgo")
	} else if errno != 0 {
		return fmt.Errorf("giving up new privileges: %w", errno)
	}
	raiseLimits(log)
	return nil
}

// wantFiles is enough for 1024 slots.
const wantFiles = 1 << 16

// raiseLimits gets this process descriptors for all slots, and memory that is not
// swapped for it and the workers, as far as it may. Go has raised the soft limit
// of descriptors to the hard one before.
func raiseLimits(log hclog.Logger) {
	if os.Geteuid() == 0 {
		raise(log, unix.RLIMIT_NOFILE, wantFiles)
		raise(log, unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY)
	}
	// With less than all, locking everything to come would make allocations
	// fail. ONFAULT: only what is used is locked, not what Go has reserved.
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil || l.Cur != unix.RLIM_INFINITY {
		log.Info("memory is not locked: the storage key may be swapped out", "limit", l.Cur)
		return
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Info("memory is not locked: the storage key may be swapped out", "error", err)
	}
}

func raise(log hclog.Logger, resource int, want uint64) {
	var l unix.Rlimit
	err := unix.Getrlimit(resource, &l)
	if err == nil && l.Max < want {
		l.Max = want
	}
	if err == nil && l.Cur < want {
		l.Cur = want
		err = unix.Setrlimit(resource, &l)
	}
	if err != nil {
		log.Debug("a limit is not raised", "resource", resource, "error", err)
	}
}
