// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/user"
	"runtime/debug"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden keeps the slot's key, and the passwords in a guest's commands, out of
// core dumps and away from other processes of the same user.
func harden() error {
	debug.SetGCPercent(50) // there is one such process for each virtual machine
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	return nil
}

// become changes to another user for good; an empty name changes nothing.
func become(name string) error {
	if name == "" {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if uidErr != nil || gidErr != nil {
		return fmt.Errorf("user %s has no number", name)
	}
	groups, err := groupsOf(u)
	if err != nil {
		return err
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("becoming %s: %w", name, err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("becoming %s: %w", name, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("becoming %s: %w", name, err)
	}
	return nil
}

// groupsOf are all groups of a user: coprocd's socket is let at by one of them.
func groupsOf(u *user.User) ([]int, error) {
	names, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of %s: %w", u.Username, err)
	}
	groups := make([]int, len(names))
	for i, name := range names {
		if groups[i], err = strconv.Atoi(name); err != nil {
			return nil, fmt.Errorf("groups of %s: %w", u.Username, err)
		}
	}
	return groups, nil
}
