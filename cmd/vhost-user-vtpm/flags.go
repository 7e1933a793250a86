// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"hwvtpm/coproc/abi"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm"
	"hwvtpm/vtpm/hostdoor"
)

// config is the command line, checked.
type config struct {
	socketPath string      // listen here; exclusive with fd
	emulator   bool        // socketPath is for QEMU's own TPM devices
	socketMode os.FileMode // of socketPath
	fd         int         // inherited socket, or -1
	simDir     string      // --coproc sim:DIR, or empty
	cardSocket string      // --coproc coprocd:SOCKET, or empty
	pciAddress string      // --coproc pcie:ADDRESS, or empty
	vfioSocket string      // --coproc vfio-user:SOCKET, or empty
	slot       string      // of a card
	slotKey    string      // file of the slot's access key
	fastCurves bool
	engine     string
	qmpPath    string
	policy     vtpm.ResetPolicy
	runName    string
	hostPCRs   hostdoor.Mode // what the TPM shows of its host
	hostd      string        // socket of the host's daemon, or empty
	layouts    vtpm.Layout
	packed     bool
	metrics    string // address, or none
	logLevel   string
	logFormat  string

	printCapabilities bool
}

const usage = `Usage: vhost-user-vtpm --socket-path PATH --coproc sim:DIR --qmp PATH [flags]
       vhost-user-vtpm --socket-path PATH --coproc coprocd:SOCKET --slot NAME
                       --slot-key FILE --qmp PATH [flags]
       vhost-user-vtpm --tpm-emulator-socket PATH --coproc ... [flags]

Gives one virtual machine a TPM 2.0: on a virtio ring, over vhost-user, or
behind QEMU's own TPM devices, for guests without a driver for the former.

Socket (one of):
  --socket-path PATH   listen on this UNIX socket
  --fd N               use the inherited socket N, listening or connected
  --tpm-emulator-socket PATH
                       listen on this UNIX socket for the control channel of
                       'qemu -tpmdev emulator', for tpm-crb and tpm-tis. QEMU
                       itself says when the TPM is reset, so --qmp and
                       --reset-policy have no use here, and neither have
                       --layout and --packed
  --socket-mode MODE   access bits of the socket, octal (default 0600)

TPM (one of):
  --coproc coprocd:SOCKET
                       the TPM lives in a slot of the card that all virtual
                       machines of this host share, behind coprocd's SOCKET.
                       When coprocd or the slot's worker dies, this program
                       connects again, and the guest waits for it
  --slot NAME          the slot
  --slot-key FILE      the slot's access key (PEM, Ed25519, mode 0600), as
                       'vtpmctl slot create' writes it; it is read each time
                       that the slot is opened, and not kept
  --coproc pcie:ADDRESS
                       the TPM lives in a slot of a PCIe card, at an address such
                       as 0000:05:00.0, which this program has for itself. It
                       must be bound to vfio-pci. With --slot and --slot-key
  --coproc vfio-user:SOCKET
                       the same for a card that coprocd serves on SOCKET as a
                       PCI function, for tests without a virtual machine
  --coproc sim:DIR     the TPM lives in a simulated coprocessor (a child
                       process) with its state in DIR. A missing or empty DIR
                       gets a new TPM; state that is damaged or not ours is an
                       error, never a new TPM.
  --engine PATH        with sim: the simulated coprocessor's program (default:
                       hwvtpm-engine beside this program, else in
                       ../libexec/hwvtpm)
  --fast-curves on|off  with sim: use OpenSSL's own code for P-256, P-384 and
                       P-521, after a check against the generic code
                       (default on)

When the TPM is reset:
  --qmp PATH           QEMU's monitor socket, for this program alone. The TPM is
                       reset when, and only when, the virtual machine is reset.
  --reset-policy qmp|keep|reset
                       qmp is the default with --qmp. Without --qmp you must
                       choose, and neither choice is as good:
                       keep   never reset while QEMU runs: PCRs can't be forged,
                              but they are wrong after a guest reboot
                       reset  reset at each start of the ring: right after a
                              reboot, but a guest's root can start PCRs over by
                              rebinding its driver, so they prove nothing
  --run-id STRING      names this run of the virtual machine; another name is a
                       power-on. Needed only if QEMU's process is not the one
                       that opens the socket (default: QEMU's process)

What the TPM shows of its host (docs/host-pcrs.md):
  --hostd SOCKET       vtpm-hostd's socket for backends, which tells what the
                       host's TPM says. It is asked at each start of the TPM
  --host-pcrs map|evidence|off
                       map       PCR 0-7 are the host's, and the guest cannot
                                 change them: for machines whose firmware does not
                                 measure. If the host cannot be asked, the TPM
                                 fails until the machine is reset. The default
                                 with --hostd and the virtio device
                       evidence  PCR 0-7 are the machine's own, and an NV index
                                 has the host's, quoted by its TPM: for machines
                                 with OVMF. The default with --hostd and
                                 --tpm-emulator-socket
                       off       the default without --hostd

Device:
  --layout both|plain|framed
                       request layouts offered to the guest (default both)
  --packed on|off      offer the packed ring (default on)

Other:
  --metrics ADDR       answer a Prometheus server's GET /metrics at unix:PATH or
                       HOST:PORT (default: nowhere)
  --log-level trace|debug|info|warn|error   (default info)
  --log-format text|json                    (default text)
  --print-capabilities  print this backend's capabilities as JSON and exit
  --version, --help

Exit codes: 0 ended in order; 1 failure; 2 wrong command line; 3 the TPM can't
be used, and trying again won't help: its state is damaged, of another TPM, older
than the card knows, sealed with another key, or in use; or there is no such
slot, it is locked, or it does not open to this key.
`

// parseArgs reads the command line. It returns flag.ErrHelp after printing help or
// version to w.
func parseArgs(args []string, w io.Writer) (config, error) {
	// The conventions want --print-capabilities to win over all else.
	for _, a := range args {
		if a == "--print-capabilities" || a == "-print-capabilities" {
			return config{printCapabilities: true}, nil
		}
	}
	var c config
	var fd, emulatorPath, coprocSpec, policy, layout, packed, curves, mode, hostPCRs string
	fs := cli.Flags("vhost-user-vtpm")
	fs.StringVar(&c.socketPath, "socket-path", "", "")
	fs.StringVar(&emulatorPath, "tpm-emulator-socket", "", "")
	fs.StringVar(&mode, "socket-mode", "0600", "")
	fs.StringVar(&fd, "fd", "", "")
	fs.StringVar(&coprocSpec, "coproc", "", "")
	fs.StringVar(&c.slot, "slot", "", "")
	fs.StringVar(&c.slotKey, "slot-key", "", "")
	fs.StringVar(&c.engine, "engine", "", "")
	fs.StringVar(&curves, "fast-curves", "on", "")
	fs.StringVar(&c.qmpPath, "qmp", "", "")
	fs.StringVar(&policy, "reset-policy", "", "")
	fs.StringVar(&c.runName, "run-id", "", "")
	fs.StringVar(&hostPCRs, "host-pcrs", "", "")
	fs.StringVar(&c.hostd, "hostd", "", "")
	fs.StringVar(&layout, "layout", "both", "")
	fs.StringVar(&packed, "packed", "on", "")
	fs.StringVar(&c.metrics, "metrics", "", "")
	fs.StringVar(&c.logLevel, "log-level", "info", "")
	fs.StringVar(&c.logFormat, "log-format", "text", "")
	if err := cli.ParseFlags(fs, args, w, usage); err != nil {
		return c, err
	}
	return c, cli.Hint(fs.Name(), errors.Join(
		c.setSocket(fd, emulatorPath, mode),
		c.checkFace(fs),
		c.setCoproc(coprocSpec),
		setSwitch(&c.fastCurves, "fast-curves", curves),
		c.setPolicy(policy),
		c.setHost(hostPCRs),
		c.setLayouts(layout),
		setSwitch(&c.packed, "packed", packed),
		c.checkLog(),
	))
}

func (c *config) setSocket(fd, emulator, mode string) error {
	c.fd = -1
	given := 0
	for _, s := range []string{c.socketPath, fd, emulator} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return errors.New("give one of --socket-path, --fd and --tpm-emulator-socket: a TPM has one virtual machine at a time")
	}
	if emulator != "" {
		c.socketPath, c.emulator = emulator, true
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || bits&^0o777 != 0 {
		return fmt.Errorf("--socket-mode %q is not an octal file mode", mode)
	}
	c.socketMode = os.FileMode(bits)
	if fd == "" {
		return nil
	}
	n, err := strconv.Atoi(fd)
	if err != nil || n < 3 {
		return fmt.Errorf("--fd %q is not a file descriptor above 2", fd)
	}
	c.fd = n
	return nil
}

// checkFace refuses what belongs to the virtio device only.
func (c *config) checkFace(fs *flag.FlagSet) (err error) {
	if !c.emulator {
		return nil
	}
	fs.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "qmp", "reset-policy", "layout", "packed":
			err = errors.Join(err, fmt.Errorf("--%s has no use with --tpm-emulator-socket", f.Name))
		}
	})
	return err
}

func (c *config) setCoproc(spec string) error {
	kind, place, _ := strings.Cut(spec, ":")
	places := map[string]*string{"sim": &c.simDir, "coprocd": &c.cardSocket, "pcie": &c.pciAddress, "vfio-user": &c.vfioSocket}
	if places[kind] == nil || place == "" {
		return errors.New("give the coprocessor as --coproc coprocd:SOCKET, pcie:ADDRESS, vfio-user:SOCKET or sim:DIR")
	}
	*places[kind] = place
	if kind != "sim" {
		return c.checkSlot(kind)
	}
	if c.slot != "" || c.slotKey != "" {
		return errors.New("--slot and --slot-key are for a card, such as --coproc coprocd:SOCKET: a simulated coprocessor has one slot, and no key")
	}
	return nil
}

func (c *config) checkSlot(kind string) error {
	switch {
	case !abi.ValidName(c.slot):
		return fmt.Errorf("--slot %q is not the name of a slot, which --coproc %s: needs", c.slot, kind)
	case c.slotKey == "":
		return fmt.Errorf("--coproc %s: needs the slot's access key: give --slot-key FILE", kind)
	case c.engine != "":
		return errors.New("--engine is for --coproc sim:DIR: a card has its own")
	}
	return nil
}

func (c *config) setPolicy(policy string) error {
	c.policy = vtpm.ResetPolicy(policy)
	switch {
	case c.emulator:
		return nil
	case policy == "" && c.qmpPath == "":
		return errors.New("without --qmp nothing tells this program when the virtual machine is reset: " +
			"give --qmp PATH, or choose --reset-policy=keep or --reset-policy=reset (see --help)")
	case policy == "":
		c.policy = vtpm.PolicyQMP
	case c.policy == vtpm.PolicyQMP && c.qmpPath == "":
		return errors.New("--reset-policy=qmp needs --qmp PATH")
	case c.policy != vtpm.PolicyQMP && c.policy != vtpm.PolicyKeep && c.policy != vtpm.PolicyReset:
		return fmt.Errorf("--reset-policy %q is not qmp, keep or reset", policy)
	case c.policy != vtpm.PolicyQMP && c.qmpPath != "":
		return fmt.Errorf("--qmp has no use with --reset-policy=%s", policy)
	}
	return nil
}

func (c *config) setLayouts(layout string) (err error) {
	if c.layouts, err = vtpm.ParseLayout(layout); err != nil {
		return fmt.Errorf("--layout: %w", err)
	}
	return nil
}

func (c *config) setHost(choice string) (err error) {
	if c.hostPCRs, err = hostdoor.ChooseMode(choice, c.hostd, c.emulator); err != nil {
		return fmt.Errorf("--host-pcrs, --hostd: %w", err)
	}
	return nil
}

func setSwitch(dst *bool, flag, value string) error {
	if value != "on" && value != "off" {
		return fmt.Errorf("--%s %q is not on or off", flag, value)
	}
	*dst = value == "on"
	return nil
}

func (c *config) checkLog() error {
	switch c.logFormat {
	case "text", "json":
	default:
		return fmt.Errorf("--log-format %q is not text or json", c.logFormat)
	}
	switch c.logLevel {
	case "trace", "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf("--log-level %q is not trace, debug, info, warn or error", c.logLevel)
}
