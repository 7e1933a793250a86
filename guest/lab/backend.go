// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// endGrace is how long a program may take to end in order.
const endGrace = 20 * time.Second

// BackendOptions are what a test may choose of vhost-user-vtpm's command line.
type BackendOptions struct {
	Layout string   // both, plain or framed; empty: the program's default
	Packed string   // on or off; empty: the program's default
	QMP    string   // the VM's second monitor socket; empty: no monitor
	Extra  []string // more arguments

	Coprocd  *Coprocd // where the TPM is; nil: in a card of its own
	Emulator bool     // serve QEMU's own TPM devices; the options above but Extra have no use
}

// Backend is a running vhost-user-vtpm.
type Backend struct {
	Socket string // QEMU connects here
	*process
}

// StartBackend starts vhost-user-vtpm on the rig's TPM and returns when it says
// that it is ready.
func (r *Rig) StartBackend(ctx context.Context, opts BackendOptions) (*Backend, error) {
	socket, ready := r.path("backend"), r.path("notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: ready, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("lab: vhost-user-vtpm: %w", err)
	}
	p, err := startProcess("vhost-user-vtpm", r.log("vhost-user-vtpm"), []string{"NOTIFY_SOCKET=" + ready}, opts.argv(r, socket)...)
	if err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	b := &Backend{Socket: socket, process: p}
	r.own(b)
	ctx, cancel := context.WithTimeout(ctx, r.Env.Patience(10*time.Second))
	defer cancel()
	if err := awaitReady(ctx, notify, p); err != nil {
		return nil, err
	}
	return b, nil
}

func (o BackendOptions) argv(r *Rig, socket string) []string {
	argv := []string{r.Env.Program("vhost-user-vtpm"), "--log-level", "debug"}
	if c := o.Coprocd; c != nil {
		argv = append(argv, "--coproc", "coprocd:"+c.Socket, "--slot", c.Slot, "--slot-key", c.KeyFile)
	} else {
		argv = append(argv, "--coproc", "sim:"+r.StateDir(), "--engine", r.Env.Program("hwvtpm-engine"))
	}
	if o.Emulator {
		return append(append(argv, "--tpm-emulator-socket", socket), o.Extra...)
	}
	argv = append(argv, "--socket-path", socket)
	for _, f := range []struct{ name, value string }{{"--layout", o.Layout}, {"--packed", o.Packed}, {"--qmp", o.QMP}} {
		if f.value != "" {
			argv = append(argv, f.name, f.value)
		}
	}
	return append(argv, o.Extra...)
}

// awaitReady waits for READY=1 (sd_notify(3)) or the program's end. It takes
// over notify, to which the program goes on to report until it ends.
func awaitReady(ctx context.Context, notify *net.UnixConn, p *process) error {
	ready := make(chan struct{})
	go func() {
		said := sync.OnceFunc(func() { close(ready) })
		buf := make([]byte, 4096)
		for {
			n, err := notify.Read(buf)
			if err != nil {
				return
			}
			if bytes.Contains(buf[:n], []byte("READY=1")) {
				said()
			}
		}
	}()
	go func() {
		<-p.done
		notify.Close()
	}()
	select {
	case <-ready:
		return nil
	case <-p.done:
		return fmt.Errorf("lab: %s ended before it was ready: %w%s", p.name, p.waitErr, p.logTail())
	case <-ctx.Done():
		return fmt.Errorf("lab: %s did not get ready: %w%s", p.name, ctx.Err(), p.logTail())
	}
}

// Kill ends the backend as a crash would.
func (b *Backend) Kill() { b.kill() }

// Alive says whether the backend's process runs.
func (b *Backend) Alive() bool { return b.alive() }

// Wait waits until the backend has ended, nil meaning exit code 0.
func (b *Backend) Wait(ctx context.Context) error { return b.wait(ctx) }

// Close ends the backend in order.
func (b *Backend) Close() error {
	b.end(endGrace)
	return nil
}

// Engine returns the process id of the backend's hwvtpm-engine. The engine is
// restarted by the backend, so the id changes over a crash; 0 means that there
// is none at this moment.
func (b *Backend) Engine() int { return childNamed(b.cmd.Process.Pid, "hwvtpm-engine") }

// childNamed finds a child of pid by its program's name (proc(5): children, comm).
func childNamed(pid int, name string) int {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tasks {
		list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for id := range strings.FieldsSeq(string(list)) {
			comm, _ := os.ReadFile("/proc/" + id + "/comm")
			if strings.TrimSpace(string(comm)) == name {
				n, _ := strconv.Atoi(id)
				return n
			}
		}
	}
	return 0
}
