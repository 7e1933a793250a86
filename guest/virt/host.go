// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"hwvtpm/guest/lab"
)

//go:embed host.sh
var hostScript string

// inside is where the host sees the folder that it shares with the test.
const inside = "/mnt/host"

// swtpmConf is where hwvtpm-swtpm learns where its TPMs are.
const swtpmConf = "etc/hwvtpm/swtpm.conf"

// files are those of the host: libvirt's configuration, our hook, and our settings.
var files = map[string]string{
	"etc/libvirt/libvirtd.conf": `unix_sock_dir = "` + inside + `/sock"
auth_unix_rw = "none"
log_level = 2
log_outputs = "2:stderr"
log_filters = "4:object 4:event 4:rpc 4:qemu_monitor"
`,
	"etc/libvirt/qemu.conf": `user = "libvirt-qemu"
group = "libvirt-qemu"
swtpm_user = "tss"
swtpm_group = "tss"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
`,
	"etc/libvirt/hooks/qemu.d/hwvtpm": `#!/bin/sh
exec /mnt/build/hwvtpm-libvirt-hook hook --systemd off --run-dir ` + inside + `/run --key-dir ` + inside + `/keys \
	--log-dir ` + inside + `/log --coproc coprocd:` + inside + `/coprocd.sock -- "$@"
`,
	swtpmConf: "socket = " + inside + "/coprocd.sock\n",
}

// Host is a running libvirt host.
type Host struct {
	Env *lab.Env

	dir   string // which the host sees as inside
	logs  string
	cmd   *exec.Cmd
	stdin io.Closer     // the host ends with it
	done  chan struct{} // closed when the host has ended
	end   func() error
}

// Start starts a host and returns when libvirt answers. Close keeps its logs in
// the existing folder logs. Root is needed.
func Start(ctx context.Context, env *lab.Env, logs string) (*Host, error) {
	dir, err := os.MkdirTemp("", "virt-")
	if err != nil {
		return nil, fmt.Errorf("virt: %w", err)
	}
	h := &Host{Env: env, dir: dir, logs: logs, done: make(chan struct{})}
	h.end = sync.OnceValue(h.close)
	if err := h.furnish(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := h.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := h.awaitLibvirt(ctx); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// furnish makes what the host finds.
func (h *Host) furnish() error {
	for _, name := range []string{
		"sock", "run", "keys", "log", "lib", "bin", "etc/libvirt/hooks/qemu.d", "etc/hwvtpm",
	} {
		if err := os.MkdirAll(h.Path(name), 0o755); err != nil {
			return fmt.Errorf("virt: %w", err)
		}
	}
	// Machines' users make files in these.
	if err := errors.Join(os.Chmod(h.Path("log"), 0o777), os.Chmod(h.Path("run"), 0o777)); err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(h.Path(name), []byte(text), 0o755); err != nil {
			return fmt.Errorf("virt: %w", err)
		}
	}
	for _, name := range []string{"swtpm", "swtpm_setup", "swtpm_ioctl"} {
		if err := os.Symlink("/mnt/build/hwvtpm-swtpm", h.Path("bin/"+name)); err != nil {
			return fmt.Errorf("virt: %w", err)
		}
	}
	return nil
}

func (h *Host) start() error {
	output, err := os.Create(h.Path("log/host.log"))
	if err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	defer output.Close()
	h.cmd = exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child",
		"/bin/sh", "-c", hostScript, "sh", h.dir, h.Env.Cache, h.Env.Build)
	h.cmd.Stdout, h.cmd.Stderr = output, output
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	if err := h.cmd.Start(); err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	go func() {
		_ = h.cmd.Wait()
		close(h.done)
	}()
	return nil
}

// awaitLibvirt waits until libvirtd answers. The first time it asks each QEMU of
// the machine what it can do, which a busy machine takes its time for.
func (h *Host) awaitLibvirt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.Env.Patience(time.Minute))
	defer cancel()
	for {
		_, err := h.Virsh(ctx, "list")
		if err == nil {
			return nil
		}
		select {
		case <-h.done:
			return fmt.Errorf("virt: the host ended early%s", h.logTails())
		case <-ctx.Done():
			return fmt.Errorf("virt: libvirt does not answer: %w%s", err, h.logTails())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// logTails are the ends of the logs of what the host itself runs.
func (h *Host) logTails() string {
	const lines = 25
	var out strings.Builder
	for _, name := range []string{"host.log", "coprocd.log", "libvirtd.log"} {
		text, err := os.ReadFile(h.Path("log/" + name))
		if err != nil {
			fmt.Fprintf(&out, "\n%v", err)
			continue
		}
		all := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&out, "\n%s ends with\n  %s", name, strings.Join(all[max(0, len(all)-lines):], "\n  "))
	}
	return out.String()
}

// Path is a file in the folder that the host shares with the test.
func (h *Host) Path(name string) string { return filepath.Join(h.dir, name) }

// Virsh runs a virsh command on the host and returns what it prints.
func (h *Host) Virsh(ctx context.Context, args ...string) (string, error) {
	uri := "qemu+unix:///system?socket=" + h.Path("sock/libvirt-sock")
	return h.run(ctx, "virsh", append([]string{"--quiet", "--connect", uri}, args...)...)
}

// Vtpmctl runs vtpmctl on the host's card and returns what it prints.
func (h *Host) Vtpmctl(ctx context.Context, args ...string) (string, error) {
	return h.run(ctx, h.Env.Program("vtpmctl"), append([]string{"--socket", h.Path("coprocd.sock")}, args...)...)
}

// UseOwnCards makes hwvtpm-swtpm keep TPMs without coprocd from now on.
func (h *Host) UseOwnCards() error {
	return os.WriteFile(h.Path(swtpmConf), []byte("socket = none\nengine = /mnt/build/hwvtpm-engine\n"), 0o644)
}

// CreateSlot makes a slot of the host's card.
func (h *Host) CreateSlot(ctx context.Context, name string) error {
	_, err := h.Vtpmctl(ctx, "slot", "create", name, "--key-dir", h.Path("keys"))
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
	<-h.done
	_ = h.stdin.Close()
	err := filepath.WalkDir(h.Path("log"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(h.logs, entry.Name()), text, 0o600)
	})
	return errors.Join(err, os.RemoveAll(h.dir))
}
