// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	// startTime bounds the start of a backend.
	startTime = 60 * time.Second
	// stopTime bounds its orderly end, after which it is killed.
	stopTime = 40 * time.Second
)

// readyFD is where a supervisor finds the pipe on which it says how the start
// went: nothing, or what went wrong.
const readyFD = 3

// daemon is a backend that runs under a supervisor of ours.
type daemon struct{ config }

// start implements launcher.
func (d daemon) start(ctx context.Context) error {
	cred, err := d.credential()
	if err != nil {
		return err
	}
	if err := errors.Join(d.makeFolder(cred), d.lendKey(cred)); err != nil {
		return err
	}
	output, err := d.openLog()
	if err != nil {
		return err
	}
	defer output.Close()
	said, ready, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := d.supervisor(cred, output, ready)
	leave, err := cmd.StdinPipe()
	if err == nil {
		defer leave.Close()
		err = cmd.Start()
	}
	ready.Close()
	if err != nil {
		return fmt.Errorf("starting a supervisor: %w", err)
	}
	// It stays when this process is gone.
	defer func() { _ = cmd.Process.Release() }()
	if err := d.writePID(cmd.Process.Pid); err != nil {
		return err // without leave, it ends
	}
	if _, err := leave.Write([]byte{1}); err != nil {
		return errors.Join(fmt.Errorf("starting a supervisor: %w", err), d.stop(ctx))
	}
	if err := awaitStart(ctx, said); err != nil {
		return errors.Join(fmt.Errorf("%w; see %s", err, output.Name()), d.stop(ctx))
	}
	return nil
}

// supervisor keeps nothing of this process open: libvirt waits for the end of its
// hook's output.
func (d daemon) supervisor(cred *syscall.Credential, output, ready *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "supervise", "--slot", d.slot, "--face", d.face,
		"--run-dir", d.runDir, "--coproc", d.coproc, "--hostd", d.hostd, "--host-pcrs", d.hostPCR, "--backend", d.backend)
	cmd.Args[0] = "hwvtpm-libvirt-hook"
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = cred
	}
	return cmd
}

// awaitStart reads what the supervisor says: its last word is ready or the cause.
func awaitStart(ctx context.Context, said *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = said.SetReadDeadline(time.Now()) })()
	text, err := io.ReadAll(io.LimitReader(said, 4096))
	switch {
	case err != nil:
		return errors.Join(errors.New("the backend does not get ready"), ctx.Err(), err)
	case string(text) == saidReady:
		return nil
	case len(text) == 0:
		return errors.New("the supervisor ended")
	}
	return errors.New(string(text))
}

// credential is that of the backend: its user, and the group of the sockets.
func (d daemon) credential() (*syscall.Credential, error) {
	u, err := user.Lookup(d.user)
	if err != nil {
		return nil, fmt.Errorf("the backends' user: %w", err)
	}
	g, err := user.LookupGroup(d.group)
	if err != nil {
		return nil, fmt.Errorf("the sockets' group: %w", err)
	}
	var ids [3]uint64
	for i, s := range []string{u.Uid, g.Gid, u.Gid} {
		if ids[i], err = strconv.ParseUint(s, 10, 32); err != nil {
			return nil, fmt.Errorf("ids of %s and %s: %w", d.user, d.group, err)
		}
	}
	return &syscall.Credential{Uid: uint32(ids[0]), Gid: uint32(ids[1]), Groups: []uint32{uint32(ids[2])}}, nil
}

// makeFolder makes the folder of the sockets. QEMU makes some in it, and they get
// the folder's group.
func (d daemon) makeFolder(cred *syscall.Credential) error {
	dir := d.path("")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(os.Lchown(dir, int(cred.Uid), int(cred.Gid)), os.Chmod(dir, 0o770|fs.ModeSetgid))
}

// lendKey gives the backend's user a copy of the slot's access key, for as long as
// the backend runs.
func (d daemon) lendKey(cred *syscall.Credential) error {
	text, err := os.ReadFile(d.keyFile())
	if err != nil {
		return fmt.Errorf("the slot's access key: %w", err)
	}
	defer clear(text)
	f, err := os.OpenFile(d.statePath("key"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		return fmt.Errorf("lending the slot's access key: %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Chown(int(cred.Uid), int(cred.Gid)), f.Close())
}

func (d daemon) openLog() (*os.File, error) {
	if err := os.MkdirAll(d.logDir, 0o750); err != nil {
		return nil, fmt.Errorf("making the folder of the logs: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(d.logDir, d.slot+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	return f, nil
}
