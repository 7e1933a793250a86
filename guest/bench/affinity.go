// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// placement says on which processors client and servers may run. On a virtual
// machine with two processors this is worth a factor of five: waking a process
// on the other one costs an interrupt between processors.
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

// apply moves the calling thread and the given processes. Threads that a
// process makes later inherit their place.
func (p placement) apply(servers []int) error {
	err := setAffinity(0, p.client)
	for _, pid := range servers {
		for _, tid := range threads(pid) {
			err = errors.Join(err, setAffinity(tid, p.server))
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
