// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hang bounds what never takes long unless something is broken.
const hang = 30 * time.Second

// process is a child whose output goes to a file in its folder. It dies with
// the thread that started it, so the whole run is on one locked thread.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the child was reaped
}

func start(dir, path string, args ...string) (*process, error) {
	p := &process{log: filepath.Join(dir, filepath.Base(path)+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer log.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is of no interest: its client noticed
		close(p.done)
	}()
	return p, nil
}

// stop ends the child in order and waits for it. It is idempotent.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(hang):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// connect waits for the child's socket and connects to it. Polling is short of
// spinning: it takes part in the time of a start.
func (p *process) connect(ctx context.Context, socket string) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	for {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err == nil {
			return c, nil
		}
		select {
		case <-p.done:
			return nil, p.failure(err)
		case <-ctx.Done():
			return nil, p.failure(ctx.Err())
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// open connects to the child's socket and makes a target of the connection. A
// child that this fails with is stopped.
func (p *process) open(ctx context.Context, socket string, wrap func(*net.UnixConn) (target, error)) (target, error) {
	conn, err := p.connect(ctx, socket)
	if err != nil {
		p.stop()
		return nil, err
	}
	t, err := wrap(conn)
	if err != nil {
		p.stop()
		return nil, err
	}
	return t, nil
}

// await asks until it is answered.
func (p *process) await(ctx context.Context, ask func() error) error {
	for begin := time.Now(); ; {
		err := ask()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Since(begin) > hang {
			return p.failure(err)
		}
		select {
		case <-p.done:
			return p.failure(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) failure(cause error) error {
	text, _ := os.ReadFile(p.log)
	return fmt.Errorf("bench: %s does not serve: %w\n%s", filepath.Base(p.cmd.Path), cause, text)
}

// children lists the processes that pid has started (proc(5), children).
func children(pid int) []int {
	var pids []int
	for _, tid := range threads(pid) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		for id := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(id); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// threads lists the threads of a process; none if it is gone.
func threads(pid int) []int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	var tids []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, n)
		}
	}
	return tids
}

// cpuTime is the time that all threads of a process have been on a processor
// (/proc/PID/task/TID/schedstat, first field, nanoseconds).
func cpuTime(pid int) time.Duration {
	var sum time.Duration
	for _, tid := range threads(pid) {
		sum += schedTime(fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, tid))
	}
	return sum
}

// threadTime is cpuTime of one thread of this process.
func threadTime(tid int) time.Duration {
	return schedTime(fmt.Sprintf("/proc/self/task/%d/schedstat", tid))
}

func schedTime(path string) time.Duration {
	text, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseInt(first, 10, 64) // 0 if the thread has ended
	return time.Duration(n)
}

// parent is the process that started pid, 0 if pid is gone (proc(5), stat).
func parent(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ") // behind the program's name
	f := strings.Fields(rest)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}
