// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// maxSocketPath is the longest path of a UNIX socket (unix(7): 108 with the
// terminating zero).
const maxSocketPath = 107

// Rig is the home of one virtual machine and its TPM. The TPM's state lives in
// it over any number of power cycles.
type Rig struct {
	Env  *Env
	Logs string // console and program logs
	// Logf gets what a reader of a test's output must know; nil: dropped.
	Logf func(format string, args ...any)

	dir string // sockets and state

	mu      sync.Mutex
	started []interface{ Close() error } // ended by Close, last one first
	serial  int                          // makes names of sockets and logs unique
}

// NewRig makes a rig whose logs go to the existing folder logs. Close removes
// the rest.
func NewRig(env *Env, logs string) (*Rig, error) {
	dir, err := os.MkdirTemp("", "vtpm-")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	const longest = "/backend-000.sock"
	if n := len(dir) + len(longest); n > maxSocketPath {
		return nil, errors.Join(fmt.Errorf("lab: %s is too long a name for a folder of sockets: set TMPDIR", dir), os.Remove(dir))
	}
	return &Rig{Env: env, Logs: logs, dir: dir}, nil
}

// StateDir is the folder of the vTPM's state.
func (r *Rig) StateDir() string { return filepath.Join(r.dir, "state") }

// Dir is the rig's folder, which Close removes: short enough a name for sockets.
func (r *Rig) Dir() string { return r.dir }

// path returns a fresh path in the rig's folder.
func (r *Rig) path(kind string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serial++
	return filepath.Join(r.dir, fmt.Sprintf("%s-%d.sock", kind, r.serial))
}

// log returns the path of a log file; programs of one name share it.
func (r *Rig) log(name string) string { return filepath.Join(r.Logs, name+".log") }

func (r *Rig) logf(format string, args ...any) {
	if r.Logf != nil {
		r.Logf(format, args...)
	}
}

// own makes Close end something.
func (r *Rig) own(c interface{ Close() error }) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = append(r.started, c)
}

// Start starts a program that stays until Close, or until it ends itself. What it says is
// in the log of that name.
func (r *Rig) Start(name string, argv ...string) error {
	p, err := startProcess(name, r.log(name), nil, argv...)
	if err != nil {
		return err
	}
	r.own(program{p})
	return nil
}

// program is what Start has started.
type program struct{ *process }

func (p program) Close() error {
	p.end(endGrace)
	return nil
}

// Close ends all that was started and removes the rig's folder, with the TPM's
// state. It is idempotent.
func (r *Rig) Close() error {
	r.mu.Lock()
	started := r.started
	r.started = nil
	r.mu.Unlock()
	var errs []error
	for i := len(started) - 1; i >= 0; i-- {
		errs = append(errs, started[i].Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}
