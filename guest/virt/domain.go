// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
)

// Domain is what a test chooses of a domain.
type Domain struct {
	Name string
	QEMU string // in the cache's bin folder; default: the one that has the virtio device
	Head string // XML of a domain's first level
	TPM  string // XML of a device
	Disk string // XML of a device
}

// StockQEMU is Debian 12's QEMU.
const StockQEMU = "qemu-7.2"

var domainXML = template.Must(template.New("domain").Parse(
	`<domain type='{{.Type}}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{{.Name}}</name>
  <memory unit='MiB'>256</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/mnt/build/vmlinuz</kernel>
    <initrd>/mnt/build/guest.cpio</initrd>
    <cmdline>` + lab.Cmdline + `</cmdline>
  </os>
  <features><acpi/></features>
  {{.CPU}}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>/mnt/cache/bin/{{.QEMU}}</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='` + inside + `/log/{{.Name}}-console.log'/><target port='0'/></serial>
    <serial type='unix'>
      <source mode='bind' path='` + inside + `/run/{{.Name}}-agent.sock'/>
      <target port='1'/>
    </serial>
    <memballoon model='none'/>
    {{.TPM}}
    {{.Disk}}
  </devices>
{{.Head}}
</domain>
`))

// VirtioTPM is the XML that gives a domain the virtio TPM of a slot, as the hook's
// program prints it.
func (h *Host) VirtioTPM(ctx context.Context, slot string) (string, error) {
	xml, err := h.run(ctx, h.Env.Program("hwvtpm-libvirt-hook"), "xml", "--slot", slot, "--run-dir", inside+"/run")
	if err != nil {
		return "", err
	}
	_, xml, _ = strings.Cut(xml, "\n")
	return strings.TrimSuffix(xml, "</domain>"), nil
}

// Define defines a domain. Its guest is that of package lab.
func (h *Host) Define(ctx context.Context, d Domain) error {
	values := map[string]string{
		"Name": d.Name, "QEMU": cmp.Or(d.QEMU, "qemu-system-x86_64"), "Head": d.Head, "TPM": d.TPM, "Disk": d.Disk,
		"Type": "qemu", "CPU": "<cpu mode='maximum'/>",
	}
	switch {
	case h.Env.Accel == lab.KVM:
		values["Type"], values["CPU"] = "kvm", "<cpu mode='host-passthrough'/>"
	case d.QEMU == StockQEMU:
		// Its emulation of CMPXCHG16B can damage the flags.
		values["CPU"] = "<cpu mode='maximum'><feature policy='disable' name='cx16'/></cpu>"
	}
	var xml strings.Builder
	if err := domainXML.Execute(&xml, values); err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	path := h.Path(d.Name + ".xml")
	if err := os.WriteFile(path, []byte(xml.String()), 0o600); err != nil {
		return fmt.Errorf("virt: %w", err)
	}
	_, err := h.Virsh(ctx, "define", path)
	return err
}

// Agent connects to the agent in the guest of a domain that was started, and waits
// until it answers.
func (h *Host) Agent(ctx context.Context, domain string) (*agent.Client, agent.Hello, error) {
	client, err := agent.Dial(h.Path("run/"+domain+"-agent.sock"), nil)
	if err != nil {
		return nil, agent.Hello{}, fmt.Errorf("virt: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.Env.Patience(time.Minute))
	defer cancel()
	hello, err := client.WaitHello(ctx)
	if err != nil {
		return nil, hello, errors.Join(fmt.Errorf("virt: boot: %w", err), client.Close())
	}
	return client, hello, nil
}

// SocketOwner is the process that listens on a socket of the host, 0 if none does,
// and its user on the host. Connecting is noticed by that process.
func (h *Host) SocketOwner(name string) (pid int, uid uint32, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.Path(name), Net: "unix"})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("virt: %w", err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, fmt.Errorf("virt: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return 0, 0, fmt.Errorf("virt: %w", err)
	}
	return int(cred.Pid), cred.Uid, nil
}
