// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"hwvtpm/guest/agent"
)

// LibvirtOptions say what a Libvirt finds.
type LibvirtOptions struct {
	// Path is a folder in which libvirtd looks for programs first, such as
	// swtpm. Empty: none.
	Path string
	// Files are put into its /etc, by their names below that.
	Files map[string]string
}

// Libvirt is the machine's own libvirtd, in namespaces where it meets no other
// libvirtd, and which end all that it started when they end.
type Libvirt struct {
	*process
	rig  *Rig
	dir  string
	init string // the process id of the namespaces' first process
}

// StartLibvirt starts a libvirtd, which needs root. Paths below /tmp and those
// of the rig mean the same to it; /etc and /var are layers that Close removes.
func (r *Rig) StartLibvirt(ctx context.Context, opts LibvirtOptions) (*Libvirt, error) {
	l := &Libvirt{rig: r, dir: filepath.Join(r.dir, "libvirt")}
	// swtpm's user gets to programs and sockets here.
	if err := errors.Join(os.Chmod(r.dir, 0o711), os.MkdirAll(filepath.Join(l.dir, "etc"), 0o755)); err != nil {
		return nil, err
	}
	for name, text := range opts.Files {
		path := filepath.Join(l.dir, "etc", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return nil, err
		}
	}
	var err error
	l.process, err = startProcess("libvirt", r.log("libvirt"), nil, "unshare", "--mount", "--pid", "--net", "--ipc", "--fork",
		"--kill-child", "--mount-proc", "bash", filepath.Join(r.Env.Top, "guest", "lab", "libvirt.sh"), l.dir, opts.Path)
	if err != nil {
		return nil, err
	}
	r.own(l)
	return l, l.awaitDaemon(ctx)
}

// awaitDaemon waits until libvirtd answers.
func (l *Libvirt) awaitDaemon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.rig.Env.Patience(20*time.Second))
	defer cancel()
	for {
		if pid := childNamed(l.cmd.Process.Pid, "bash"); pid != 0 {
			l.init = strconv.Itoa(pid)
			// Before it is there, virsh would start one of its own.
			if _, err := os.Stat(filepath.Join("/proc", l.init, "root", "run/libvirt/libvirt-sock")); err == nil {
				if _, err := l.Virsh(ctx, "version"); err == nil {
					return nil
				}
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-l.done:
			return fmt.Errorf("lab: libvirt ended early: %w%s", l.waitErr, l.logTail())
		case <-ctx.Done():
			return fmt.Errorf("lab: libvirt does not answer: %w%s", ctx.Err(), l.logTail())
		}
	}
}

// Virsh runs a command of virsh and gives what it prints.
func (l *Libvirt) Virsh(ctx context.Context, args ...string) (string, error) {
	return l.Run(ctx, append([]string{"virsh", "--quiet", "--connect", "qemu:///system"}, args...)...)
}

// Run runs a program in the namespaces and gives what it prints.
func (l *Libvirt) Run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", l.init, "--mount", "--root", "--pid", "--net", "--ipc"}, argv...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("lab: %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), err
}

// Domain is a virtual machine of libvirt's.
type Domain struct {
	Name, UUID string
	TPM        string // its <tpm> element
}

var domainXML = template.Must(template.New("domain").Parse(`<domain type='{{.Type}}'>
  <name>{{.Name}}</name><uuid>{{.UUID}}</uuid>
  <memory unit='MiB'>256</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{{.Kernel}}</kernel><initrd>{{.Image}}</initrd>
    <cmdline>console=ttyS0 panic=-1 reboot=t</cmdline></os>
  <features><acpi/></features>
  {{.CPU}}
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>{{.QEMU}}</emulator>
    <controller type='usb' model='none'/><memballoon model='none'/>
    <serial type='file'><source path='{{.Console}}'/><target port='0'/></serial>
    <serial type='unix'><source mode='bind' path='{{.Agent}}'/><target port='1'/></serial>
    {{.TPM}}
  </devices>
</domain>
`))

// agentSocket is the domain's second serial port.
func (l *Libvirt) agentSocket(d Domain) string { return filepath.Join(l.rig.dir, d.Name+".agent") }

// Define tells libvirt of a domain with the guest kernel and image of the lab,
// on Debian 12's QEMU.
func (l *Libvirt) Define(ctx context.Context, d Domain) error {
	env := l.rig.Env
	kind, cpu := "kvm", "<cpu mode='host-passthrough'/>"
	if env.Accel == TCG {
		// Without cx16: this QEMU's emulation of it can damage the flags.
		kind, cpu = "qemu", "<cpu mode='maximum'><feature policy='disable' name='cx16'/></cpu>"
	}
	var text bytes.Buffer
	err := domainXML.Execute(&text, map[string]string{
		"Type": kind, "CPU": cpu, "Name": d.Name, "UUID": d.UUID, "TPM": d.TPM, "QEMU": env.StockQEMU(),
		"Kernel": env.Kernel("6.12"), "Image": env.Image(), "Console": l.rig.log(d.Name + "-console"), "Agent": l.agentSocket(d),
	})
	if err != nil {
		return err
	}
	file := filepath.Join(l.rig.dir, d.Name+".xml")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return err
	}
	_, err = l.Virsh(ctx, "define", file)
	return err
}

// Agent connects to the agent of a domain that runs, and waits for its first
// word.
func (l *Libvirt) Agent(ctx context.Context, d Domain) (*agent.Client, error) {
	c, err := agent.Dial(l.agentSocket(d), nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.rig.Env.Patience(bootPatience))
	defer cancel()
	if _, err := c.WaitHello(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: boot: %w; console ends with%s", err, tail(l.rig.log(d.Name+"-console"))), c.Close())
	}
	return c, nil
}

// Close ends libvirtd and all that it started.
func (l *Libvirt) Close() error {
	l.kill()
	return nil
}
