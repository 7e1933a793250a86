// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hwvtpm/qmp"
)

// Cmdline is what each guest's kernel is told. It panics early in its boot if it sees
// too few of the timer's interrupts in a time that it counts by its own loops, which
// on a busy host is soon over under emulation: it is not to look. Without its tests of
// its own cryptography it is up an eighth earlier.
const Cmdline = "console=ttyS0 panic=-1 reboot=t no_timer_check cryptomgr.notests=1"

// VMOptions say what machine to start. The zero value is a machine without a
// TPM on the recommended guest kernel.
type VMOptions struct {
	Name      string   // of the log; default "vm"
	QEMU      string   // the program; default Env.QEMU
	Kernel    string   // a series that fetch.sh knows; default 6.12
	Image     string   // initramfs; default Env.Image, or Env.PlainImage without Tools
	Tools     bool     // the guest uses tpm2-tools
	Disk      bool     // firmware starts GRUB from a disk, not QEMU the kernel
	Append    string   // more of the kernel's command line
	MemoryMiB int      // default 256
	TPM       TPM      // nil: none
	Monitor   string   // a monitor socket for the backend, from Rig.MonitorPath; empty: none
	Extra     []string // more of QEMU's command line
}

// VM is a running QEMU.
type VM struct {
	QMP     *qmp.Client
	Console string // file with all that the guest's first serial port printed
	// AgentSocket is the guest's second serial port.
	AgentSocket string
	*process
}

// MonitorPath reserves the name of a QMP socket, which is needed to start the
// backend before the VM exists.
func (r *Rig) MonitorPath() string { return r.path("monitor") }

// StartVM starts QEMU and returns when its monitor answers. The guest has only
// begun to boot by then: see Boot.
func (r *Rig) StartVM(ctx context.Context, opts VMOptions) (*VM, error) {
	name := cmp.Or(opts.Name, "vm")
	control := r.MonitorPath()
	vm := &VM{AgentSocket: r.path("agent"), Console: r.log(name + "-console")}
	argv, err := opts.argv(r, vm, control)
	if err != nil {
		return nil, err
	}
	// QEMU would append to an old console, which then could not be searched.
	if err := os.Remove(vm.Console); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if vm.process, err = startProcess("qemu", r.log(name+"-qemu"), nil, argv...); err != nil {
		return nil, err
	}
	r.own(vm)
	ctx, cancel := context.WithTimeout(ctx, r.Env.Patience(10*time.Second))
	defer cancel()
	err = vm.reach(ctx, func() (err error) {
		vm.QMP, err = qmp.Dial(ctx, control)
		return err
	})
	if err != nil {
		return nil, err
	}
	return vm, nil
}

func (o VMOptions) argv(r *Rig, vm *VM, control string) ([]string, error) {
	memory := fmt.Sprintf("%dM", cmp.Or(o.MemoryMiB, 256))
	system, err := o.system(r)
	if err != nil {
		return nil, err
	}
	argv := []string{
		cmp.Or(o.QEMU, r.Env.QEMU()), "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35,memory-backend=mem", "-accel", string(r.Env.Accel), "-cpu", r.Env.Accel.cpu(),
		"-m", memory, "-object", "memory-backend-memfd,id=mem,share=on,size=" + memory,
		"-serial", "file:" + vm.Console,
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + vm.AgentSocket, "-serial", "chardev:agent",
		"-device", "pcie-root-port,id=" + slotBus + ",bus=pcie.0,chassis=1,slot=1",
	}
	argv = append(argv, system...)
	for i, path := range []string{control, o.Monitor} {
		if path != "" {
			id := fmt.Sprintf("mon%d", i)
			argv = append(argv, "-chardev", "socket,server=on,wait=off,id="+id+",path="+path, "-mon", "mode=control,chardev="+id)
		}
	}
	if o.TPM != nil {
		tpm, err := o.TPM.args()
		if err != nil {
			return nil, err
		}
		argv = append(argv, tpm...)
	}
	return append(argv, o.Extra...), nil
}

// system is what the machine starts.
func (o VMOptions) system(r *Rig) ([]string, error) {
	initrd := r.Env.PlainImage()
	if o.Tools {
		initrd = r.Env.Image()
	}
	initrd = cmp.Or(o.Image, initrd)
	kernel := r.Env.Kernel(cmp.Or(o.Kernel, "6.12"))
	cmdline := Cmdline + " " + o.Append
	if !o.Disk {
		return []string{"-kernel", kernel, "-initrd", initrd, "-append", cmdline}, nil
	}
	disk := filepath.Join(r.dir, cmp.Or(o.Name, "vm")+"-disk.img")
	return []string{
		"-drive", "if=none,id=disk,format=raw,readonly=on,file=" + disk,
		"-device", "virtio-blk-pci,drive=disk",
	}, r.Env.bootDisk(disk, kernel, initrd, cmdline)
}

// Alive says whether QEMU runs.
func (vm *VM) Alive() bool { return vm.alive() }

// Wait waits until QEMU has ended, nil meaning exit code 0.
func (vm *VM) Wait(ctx context.Context) error { return vm.wait(ctx) }

// Kill ends QEMU as a loss of power would.
func (vm *VM) Kill() { vm.kill() }

// Close ends QEMU. The guest is not asked.
func (vm *VM) Close() error {
	vm.end(endGrace)
	if vm.QMP == nil {
		return nil
	}
	return vm.QMP.Close()
}

// ConsoleText is what the guest's console has printed.
func (vm *VM) ConsoleText() string {
	text, _ := os.ReadFile(vm.Console)
	return string(text)
}

// panicked says whether the guest's kernel gave up.
func (vm *VM) panicked() bool {
	text, _ := os.ReadFile(vm.Console)
	return bytes.Contains(text, []byte("Kernel panic"))
}
