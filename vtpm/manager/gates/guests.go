// SPDX-License-Identifier: Apache-2.0

package gates

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// suffix of the sockets in the folder of guests.
const suffix = ".sock"

// Guests are the gates of all machines: the socket NAME.sock in a folder, for QEMU to
// connect the machine's channel to. Its methods may be called from any goroutine.
type Guests struct {
	dir    string
	shared Config

	mu     sync.Mutex // guards what follows
	gates  map[string]*Gate
	failed map[string]string // machines without one, and why
	closed bool
}

// NewGuests makes the folder, and removes sockets that a process before left in it.
// Of shared it takes all but Path and VM.
func NewGuests(dir string, shared Config) (*Guests, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type() == os.ModeSocket && strings.HasSuffix(e.Name(), suffix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return &Guests{dir: dir, shared: shared, gates: map[string]*Gate{}, failed: map[string]string{}}, err
}

// makeDir makes a folder that others can reach the sockets in, whatever the umask is.
// One that is there stays as it is.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// Set opens gates for machines that have none, and closes those of machines that are
// not in the list. One that can't be opened is logged once, and tried again.
func (g *Guests) Set(vms []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	for vm, gate := range g.gates {
		if !slices.Contains(vms, vm) {
			gate.Close()
			delete(g.gates, vm)
		}
	}
	for vm := range g.failed {
		if !slices.Contains(vms, vm) {
			delete(g.failed, vm)
		}
	}
	for _, vm := range vms {
		if g.gates[vm] == nil {
			g.openLocked(vm)
		}
	}
}

func (g *Guests) openLocked(vm string) {
	cfg := g.shared
	cfg.Path, cfg.VM = filepath.Join(g.dir, vm+suffix), vm
	gate, err := Open(cfg)
	if err == nil {
		g.gates[vm] = gate
		delete(g.failed, vm)
		return
	}
	if g.failed[vm] != err.Error() {
		g.failed[vm] = err.Error()
		g.shared.Logger.Error("a machine has no door", "vm", vm, "error", err)
	}
}

// Close closes all gates. It is idempotent.
func (g *Guests) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for vm, gate := range g.gates {
		gate.Close()
		delete(g.gates, vm)
	}
	return nil
}
