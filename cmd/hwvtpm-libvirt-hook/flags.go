// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hwvtpm/coproc/abi"
	"hwvtpm/internal/cli"
)

// config is the command line, checked.
type config struct {
	command string
	event   event // of hook

	slot   string
	face   string // faceVirtio or faceEmulator
	ifLost bool

	runDir  string
	keyDir  string
	logDir  string
	coproc  string
	hostd   string // socket, or empty
	hostPCR string // mode, or empty
	backend string
	user    string
	group   string
	systemd string // auto or off
}

// event is what libvirt tells its hooks ("Hooks for specific system management").
type event struct{ domain, operation, sub string }

// Faces of a TPM, as --face and the metadata name them.
const (
	faceVirtio   = "virtio"
	faceEmulator = "emulator"
)

const usage = `Usage: hwvtpm-libvirt-hook hook [flags] -- DOMAIN OPERATION SUB EXTRA
       hwvtpm-libvirt-hook xml --slot NAME [--face virtio|emulator]
       hwvtpm-libvirt-hook recover [--if-lost] SLOT

Starts and stops the vTPM backends of libvirt domains.

Commands:
  hook      what libvirt runs, with the domain's XML on stdin. A domain whose
            metadata names a slot gets its backend before QEMU starts, and loses
            it when QEMU has ended. Other domains are none of its business
  xml       print what a domain needs in its XML, to be merged with virsh edit
  recover   unplug the TPM from a running machine and plug it in again, on the
            backend that listens now. A backend that died must be replaced so
            before the machine is reset, or QEMU aborts

Of xml and recover:
  --slot NAME          the slot of the card in which the TPM lives
  --face virtio|emulator
                       virtio: a device for guests with the driver tpm_virtio,
                       and a QEMU that has vhost-user-test-device-pci (11.1 or
                       newer); emulator: an external TPM for any guest and QEMU
                       (default virtio)
  --if-lost            do nothing if there is no machine, or its TPM is connected

Of hook:
  --user NAME          user of the backends (default hwvtpm)
  --group NAME         group of the sockets: one that QEMU is in (default kvm)
  --systemd auto|off   auto: a backend is an instance of vhost-user-vtpm@.service
                       where systemd runs, which has --user, --group and the
                       folders in its unit; off: always a child of this program
                       (default auto)
  --key-dir DIR        where the slots' access keys are, as SLOT.key (default
                       /var/lib/hwvtpm/keys)
  --coproc SPEC        the card, as vhost-user-vtpm takes it (default
                       coprocd:/run/hwvtpm/coprocd.sock)
  --hostd SOCKET       vtpm-hostd, which tells what the host's TPM says; see
  --host-pcrs MODE     vhost-user-vtpm, which takes both. A single machine's
                       VTPM_FLAGS, with systemd, have the last word
  --backend PATH       the backend's program (default: vhost-user-vtpm beside this
                       program)
  --log-dir DIR        where backends log to, as SLOT.log, if not to systemd
                       (default /var/log/hwvtpm)

Everywhere:
  --run-dir DIR        folder of the sockets, DIR/vm/SLOT (default /run/hwvtpm)
  --version, --help

Exit codes: 0 done, or nothing to do; 1 failure; 2 wrong command line.
`

// commandFlags are the flags that each command takes.
var commandFlags = map[string][]string{
	"hook":      {"user", "group", "systemd", "key-dir", "coproc", "hostd", "host-pcrs", "backend", "log-dir", "run-dir"},
	"supervise": {"slot", "face", "coproc", "hostd", "host-pcrs", "backend", "run-dir"},
	"xml":       {"slot", "face", "run-dir"},
	"recover":   {"if-lost", "run-dir"},
}

func (c *config) flags() *flag.FlagSet {
	fs := cli.Flags(program)
	fs.StringVar(&c.slot, "slot", "", "")
	fs.StringVar(&c.face, "face", faceVirtio, "")
	fs.BoolVar(&c.ifLost, "if-lost", false, "")
	fs.StringVar(&c.user, "user", "hwvtpm", "")
	fs.StringVar(&c.group, "group", "kvm", "")
	fs.StringVar(&c.systemd, "systemd", "auto", "")
	fs.StringVar(&c.keyDir, "key-dir", "/var/lib/hwvtpm/keys", "")
	fs.StringVar(&c.coproc, "coproc", "coprocd:/run/hwvtpm/coprocd.sock", "")
	fs.StringVar(&c.hostd, "hostd", "", "")
	fs.StringVar(&c.hostPCR, "host-pcrs", "", "")
	fs.StringVar(&c.backend, "backend", "", "")
	fs.StringVar(&c.logDir, "log-dir", "/var/log/hwvtpm", "")
	fs.StringVar(&c.runDir, "run-dir", "/run/hwvtpm", "")
	return fs
}

// parseArgs reads the command line. It returns flag.ErrHelp after printing help or
// version to w.
func parseArgs(args []string, w io.Writer) (config, error) {
	var c config
	if len(args) > 0 && commandFlags[args[0]] != nil {
		c.command, args = args[0], args[1:]
	}
	fs := c.flags()
	if err := cli.Parse(fs, args, w, usage); err != nil {
		return c, err
	}
	if c.command == "" {
		return c, cli.Hint(program, errors.New("give a command: hook, xml or recover"))
	}
	return c, cli.Hint(program, errors.Join(c.checkFlags(fs), c.setWords(fs.Args()), c.check()))
}

func (c *config) checkFlags(fs *flag.FlagSet) (err error) {
	fs.Visit(func(f *flag.Flag) {
		if !slices.Contains(commandFlags[c.command], f.Name) {
			err = errors.Join(err, fmt.Errorf("%s does not take --%s", c.command, f.Name))
		}
	})
	return err
}

// setWords takes what follows the flags.
func (c *config) setWords(words []string) error {
	want := map[string]int{"hook": 4, "recover": 1}[c.command]
	if len(words) != want {
		return fmt.Errorf("%s takes %d words after its flags, not %d", c.command, want, len(words))
	}
	switch c.command {
	case "hook":
		c.event = event{domain: words[0], operation: words[1], sub: words[2]}
	case "recover":
		c.slot = words[0]
	}
	return nil
}

func (c *config) check() error {
	if c.command != "hook" && !abi.ValidName(c.slot) {
		return fmt.Errorf("%q is not the name of a slot", c.slot)
	}
	if c.face != faceVirtio && c.face != faceEmulator {
		return fmt.Errorf("--face %q is not virtio or emulator", c.face)
	}
	if c.systemd != "auto" && c.systemd != "off" {
		return fmt.Errorf("--systemd %q is not auto or off", c.systemd)
	}
	// They are words among others in a unit's environment.
	if strings.ContainsAny(c.hostd+c.hostPCR, " \t\n\"'\\$") {
		return errors.New("--hostd or --host-pcrs has characters that are not ordinary")
	}
	// It becomes part of QEMU's options, and of XML.
	if !filepath.IsAbs(c.runDir) || strings.ContainsAny(c.runDir, `,'"<>&`) {
		return fmt.Errorf("--run-dir %q is not an absolute path of ordinary characters", c.runDir)
	}
	if c.backend != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding vhost-user-vtpm: give --backend: %w", err)
	}
	c.backend = filepath.Join(filepath.Dir(self), "vhost-user-vtpm")
	return nil
}
