// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"hwvtpm/guest/lab"
)

//go:embed host.sh
var hostScript string

// inside is where the host sees the folder that it shares with the test.
const inside = "/mnt/host"

// files are those of the host: libvirt's configuration, and our hook.
var files = map[string]string{
	"etc/libvirtd.conf": `unix_sock_dir = "` + inside + `/sock"
auth_unix_rw = "none"
`,
	"etc/qemu.conf": `user = "libvirt-qemu"
group = "libvirt-qemu"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
`,
	"etc/hooks/qemu.d/hwvtpm": `#!/bin/sh
exec /mnt/build/hwvtpm-libvirt-hook hook --systemd off --run-dir ` + inside + `/run --key-dir ` + inside + `/keys \
	--log-dir ` + inside + `/log --coproc coprocd:` + inside + `/coprocd.sock -- "$@"
`,
}

// Host is a running libvirt host.
type Host struct {
	Env *lab.Env

	dir  string // which the host sees as inside
	logs string
	cmd  *exec.Cmd
	end  func() error
}

// Start starts a host and returns when libvirt answers. Close keeps its logs in
// the existing folder logs. Root is needed.
func Start(ctx context.Context, env *lab.Env, logs string) (*Host, error) {
	dir, err := os.MkdirTemp("", "virt-")
	if err != nil {
		return nil, fmt.Errorf("virt: %w", err)
	}
	h := &Host{Env: env, dir: dir, logs: logs}
	h.end = sync.OnceValue(h.close)
	if err := h.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithTimeout(ctx, env.Patience(15*time.Second))
	defer cancel()
	for {
		_, err := h.Virsh(ctx, "list")
		if err == nil {
			return h, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("virt: libvirt does not answer: %w", err), h.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (h *Host) start() error {
	for _, name := range []string{"sock", "run", "keys", "log", "etc/hooks/qemu.d"} {
		if err := os.MkdirAll(h.Path(name), 0o755); err != nil {
			return fmt.Errorf("virt: %w", err)
		}
	}
	// QEMU makes files in these.
	if err := errors.Join(os.Chmod(h.Path("log"), 0o777), os.Chmod(h.Path("run"), 0o777)); err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(h.Path(name), []byte(text), 0o755); err != nil {
			return fmt.Errorf("virt: %w", err)
		}
	}
	output, err := os.Create(h.Path("log/host.log"))
	if err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	defer output.Close()
	h.cmd = exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child",
		"/bin/sh", "-c", hostScript, "sh", h.dir, h.Env.Cache, h.Env.Build)
	h.cmd.Stdout, h.cmd.Stderr = output, output
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.cmd.Start(); err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	return nil
}

// Path is a file in the folder that the host shares with the test.
func (h *Host) Path(name string) string { return filepath.Join(h.dir, name) }

// Virsh runs a virsh command on the host and returns what it prints.
func (h *Host) Virsh(ctx context.Context, args ...string) (string, error) {
	uri := "qemu+unix:///system?socket=" + h.Path("sock/libvirt-sock")
	return h.run(ctx, "virsh", append([]string{"--quiet", "--connect", uri}, args...)...)
}

// CreateSlot makes a slot of the host's card.
func (h *Host) CreateSlot(ctx context.Context, name string) error {
	_, err := h.run(ctx, h.Env.Program("vtpmctl"), "--socket", h.Path("coprocd.sock"), "slot", "create", name,
		"--key-dir", h.Path("keys"))
	return err
}

func (h *Host) run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("virt: %s: %w: %s", filepath.Base(program), err, bytes.TrimSpace(errs.Bytes()))
	}
	return string(bytes.TrimSpace(out.Bytes())), nil
}

// Close ends the host with all its machines. It is idempotent.
func (h *Host) Close() error { return h.end() }

func (h *Host) close() error {
	// The namespace's first process goes with unshare, and all others with it.
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
	kept, err := filepath.Glob(h.Path("log/*"))
	for _, name := range kept {
		if text, readErr := os.ReadFile(name); readErr == nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(h.logs, filepath.Base(name)), text, 0o600))
		}
	}
	return errors.Join(err, os.RemoveAll(h.dir))
}
