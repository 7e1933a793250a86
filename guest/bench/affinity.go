// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// placement says on which processors client and servers may run; in the guest
// part QEMU is the client. This decides more than anything else on a machine
// that is itself virtual: waking a process on another processor costs an
// interrupt between processors, and whether the kernel's TPM core sleeps depends
// on whether the response is there when the guest looks first.
type placement struct {
	name           string
	client, server int // processor, or anyCPU
}

const anyCPU = -1

func placements() []placement {
	p := []placement{
		{"free", anyCPU, anyCPU},
		{"one CPU", 0, 0},
	}
	if runtime.NumCPU() > 1 {
		p = append(p, placement{"two CPUs", 0, 1})
	}
	return p
}

// pinned says whether the placement leaves the scheduler no choice.
func (p placement) pinned() bool { return p.client != anyCPU }

// pinnedCommands are those that are measured in such placements, too: those
// with a target.
var pinnedCommands = inGuestTargets

// has says whether a command is measured in this placement.
func (p placement) has(command string) bool {
	return !p.pinned() || slices.Contains(pinnedCommands, command)
}

// pin moves all threads of processes. Threads that these make later inherit
// their place.
func pin(pids []int, cpu int) error {
	var err error
	for _, pid := range pids {
		for _, tid := range threads(pid) {
			err = errors.Join(err, setAffinity(tid, cpu))
		}
	}
	return err
}

func setAffinity(tid, cpu int) error {
	var set unix.CPUSet
	if cpu != anyCPU {
		set.Set(cpu)
	} else {
		for i := range runtime.NumCPU() {
			set.Set(i)
		}
	}
	// A thread that has ended meanwhile needs no place.
	if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("bench: processor affinity: %w", err)
	}
	return nil
}
