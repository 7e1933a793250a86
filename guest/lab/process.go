// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child with its output in a file. It dies with this program, even
// if this program is killed.
type process struct {
	name    string
	logPath string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the child was reaped
	waitErr error         // valid after done
	endOnce sync.Once
}

// startProcess starts argv with env added to the environment. The log is
// appended to, so that a restarted program keeps its history.
func startProcess(name, logPath string, env []string, argv ...string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", name, err)
	}
	defer log.Close()
	fmt.Fprintf(log, "+ %s\n", strings.Join(argv, " "))
	p := &process{name: name, logPath: logPath, done: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), env...)
	// A group of its own keeps a terminal's ^C from ending the machine in the
	// middle of an orderly shutdown.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.startPinned(); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", name, err)
	}
	go func() {
		p.waitErr = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// starter is the one goroutine that forks children: PDEATHSIG fires when the
// thread that forked ends, so that thread must live as long as the program.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func (p *process) startPinned() error {
	result := make(chan error)
	starter() <- func() { result <- p.cmd.Start() }
	return <-result
}

// alive says whether the child still runs.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait waits for the child's end and returns how it ended: nil for exit code 0.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		if p.waitErr != nil {
			return fmt.Errorf("lab: %s: %w%s", p.name, p.waitErr, p.logTail())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lab: %s still runs: %w", p.name, ctx.Err())
	}
}

// reach calls dial, which connects to a socket of the child's, until the child
// listens. The file is there a moment before that, so neither its absence nor a
// refusal is an answer as long as the child runs.
func (p *process) reach(ctx context.Context, dial func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := dial()
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("lab: %s: %w%s", p.name, err, p.logTail())
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("lab: %s ended early: %w%s", p.name, p.waitErr, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("lab: %s does not listen: %w (%w)%s", p.name, ctx.Err(), err, p.logTail())
		}
	}
}

// kill ends the child at once and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// end asks the child to end, and makes it after grace. It is idempotent.
func (p *process) end(grace time.Duration) {
	p.endOnce.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
			p.kill()
		}
	})
}

// logTail is the end of the child's log, for error messages.
func (p *process) logTail() string { return tail(p.logPath) }

// tail returns the last lines of a file, each on an indented line of its own.
func tail(path string) string {
	const lines = 12
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "\n  " + strings.Join(all, "\n  ")
}
