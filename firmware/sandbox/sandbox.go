// SPDX-License-Identifier: Apache-2.0

package sandbox

// Status tells what shuts this process in.
type Status struct {
	// Landlock is the version of Landlock's ABI that is in force, 0 if the
	// kernel has none.
	Landlock int
	// Seccomp: the filter is in force. It is false only in a process that was
	// not started as a worker, or does not link this package.
	Seccomp bool
	// Locked: nothing of this process goes to swap space.
	Locked bool
}

// Report returns what was done before the program started.
func Report() Status { return report() }
