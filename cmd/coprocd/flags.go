// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"hwvtpm/firmware/broker"
	"hwvtpm/firmware/sealed/hosttpm"
	"hwvtpm/internal/cli"
)

// config is the command line, checked.
type config struct {
	storeDir string
	adopt    string // reason to adopt a store that was set back
	engine   string

	socketPath string
	socketMode os.FileMode
	policy     broker.Policy
	vfioUser   string
	metrics    string

	keyFile string
	hostTPM string
	pcrs    hosttpm.Selection
	backup  string
	reseal  bool
	index   hosttpm.Index

	maxLive    int
	spares     int
	parkAfter  time.Duration
	anchor     time.Duration
	workerUID  int
	fastCurves bool

	logLevel  string
	logFormat string
}

const usage = `Usage: coprocd --store DIR --socket PATH [flags]

A simulated card: TPMs in slots, each in a process of its own.

Store:
  --store DIR          what the card keeps, sealed. A missing or empty DIR gets a
                       new card; one that is damaged is an error, never new
  --adopt REASON       take a store that was set back (a restored backup) as it
                       is, once; the reason is logged
  --engine PATH        the workers' program (default: hwvtpm-engine beside this
                       program, else in ../libexec/hwvtpm)

The card's storage key (one of):
  --key-file PATH      in a file, 0600 (default: DIR/key). No protection from who
                       reads it, and none against rollback
  --host-tpm ADDRESS   sealed by the host's TPM, with a counter in it against
                       rollback: device:/dev/tpmrm0, or swtpm:PATH or
                       swtpm:HOST:PORT for a TPM behind a socket
    --pcrs LIST        PCRs that a new card's key is sealed under
                       (default sha256:0,2,7)
    --key-backup FILE  a new card's key is written here in clear too, or taken
                       from here; to be kept elsewhere
    --reseal           seal the key anew from --key-backup, under the PCRs as
                       they are: after firmware or boot loader have changed
    --nv-index NUMBER  of the counter; two cards of one host need two

Clients:
  --socket PATH        serve this UNIX socket (SOCK_SEQPACKET). A service manager
                       may pass it instead (LISTEN_FDS)
  --socket-mode MODE   access bits of it, octal (default 0660)
  --admin-uid USER     who may create and destroy slots, beside root and the
  --admin-gid GROUP    daemon's own user; names or numbers, may be repeated
  --vfio-user PATH     serve a PCI function on this socket, to one client at a
                       time, which administers the card (access bits 0600)
  --metrics ADDRESS    serve Prometheus metrics by HTTP: HOST:PORT or unix:PATH

Slots:
  --max-live N         workers at the same time (default 64)
  --spares N           workers kept started for the next slot (default 2)
  --park-after TIME    a slot that is idle for so long gives its worker back
                       (default 60s, 0: never)
  --anchor-interval TIME  how often the anchor against rollback advances at most
                       (default 5s)
  --worker-uid UID     as root: each worker runs as a user of its own, from UID
                       on (default 2113929216; -1: as this program)
  --fast-curves on|off  use OpenSSL's own code for P-256, P-384 and P-521, after
                       a check against the generic code (default on)

Other:
  --log-level trace|debug|info|warn|error   (default info)
  --log-format text|json                    (default text)
  --version, --help

Exit codes: 0 ended in order; 1 failure; 2 wrong command line; 3 the store
can't be used (damaged, set back, of another key, or in use).
`

// defaultWorkerUID is in a range that nobody gives out (systemd, "Users, Groups,
// UIDs and GIDs").
const defaultWorkerUID = 2113929216

// options are what flags give in a form of their own.
type options struct{ mode, pcrs, index, curves string }

// flags describes the flags to package flag.
func (c *config) flags(o *options) *flag.FlagSet {
	fs := cli.Flags("coprocd")
	for name, p := range map[string]*string{
		"store": &c.storeDir, "adopt": &c.adopt, "engine": &c.engine,
		"key-file": &c.keyFile, "host-tpm": &c.hostTPM, "pcrs": &o.pcrs, "key-backup": &c.backup, "nv-index": &o.index,
		"socket": &c.socketPath, "socket-mode": &o.mode, "vfio-user": &c.vfioUser, "metrics": &c.metrics,
		"fast-curves": &o.curves, "log-level": &c.logLevel, "log-format": &c.logFormat,
	} {
		fs.StringVar(p, name, "", "")
	}
	fs.Func("admin-uid", "", func(s string) error { return addID(&c.policy.UIDs, s, userID) })
	fs.Func("admin-gid", "", func(s string) error { return addID(&c.policy.GIDs, s, groupID) })
	fs.IntVar(&c.maxLive, "max-live", 64, "")
	fs.IntVar(&c.spares, "spares", 2, "")
	fs.DurationVar(&c.parkAfter, "park-after", time.Minute, "")
	fs.DurationVar(&c.anchor, "anchor-interval", 5*time.Second, "")
	uid := -1
	if os.Geteuid() == 0 {
		uid = defaultWorkerUID
	}
	fs.IntVar(&c.workerUID, "worker-uid", uid, "")
	fs.BoolVar(&c.reseal, "reseal", false, "")
	return fs
}

// parseArgs reads the command line. It returns flag.ErrHelp after printing help or
// version to w.
func parseArgs(args []string, w io.Writer) (c config, err error) {
	var o options
	err = cli.ParseChecked(c.flags(&o), args, w, usage, func() error {
		return errors.Join(c.checkFaces(), c.checkSlots(), c.setMode(o.mode), c.setProtection(o.pcrs, o.index),
			setSwitch(&c.fastCurves, "fast-curves", o.curves), c.checkLog(), c.resolve())
	})
	return c, err
}

func (c *config) checkFaces() error {
	switch {
	case c.storeDir == "":
		return errors.New("give the card's directory as --store DIR")
	case c.socketPath == "" && c.vfioUser == "" && os.Getenv("LISTEN_FDS") == "":
		return errors.New("give --socket PATH or --vfio-user PATH: nobody could reach the card")
	}
	return nil
}

func (c *config) checkSlots() error {
	switch {
	case c.maxLive < 1:
		return fmt.Errorf("--max-live %d: at least 1", c.maxLive)
	case c.spares < 0 || c.spares > c.maxLive:
		return fmt.Errorf("--spares %d: 0 to --max-live", c.spares)
	case c.parkAfter < 0:
		return fmt.Errorf("--park-after %v is negative", c.parkAfter)
	case c.anchor <= 0:
		return fmt.Errorf("--anchor-interval %v: it must be above zero", c.anchor)
	}
	return nil
}

func (c *config) setMode(mode string) error {
	c.socketMode = 0o660
	if mode == "" {
		return nil
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || bits&^0o777 != 0 {
		return fmt.Errorf("--socket-mode %q is not an octal file mode", mode)
	}
	c.socketMode = os.FileMode(bits)
	return nil
}

func setSwitch(dst *bool, flag, value string) error {
	if value != "" && value != "on" && value != "off" {
		return fmt.Errorf("--%s %q is not on or off", flag, value)
	}
	*dst = value != "off"
	return nil
}

func (c *config) checkLog() error {
	switch c.logFormat {
	case "", "text", "json":
	default:
		return fmt.Errorf("--log-format %q is not text or json", c.logFormat)
	}
	switch c.logLevel {
	case "", "trace", "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf("--log-level %q is not trace, debug, info, warn or error", c.logLevel)
}

// resolve makes paths absolute, since workers run in another directory, and
// finds the workers' program.
func (c *config) resolve() error {
	if c.engine == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own path: %w", err)
		}
		bin := filepath.Dir(self)
		c.engine = filepath.Join(bin, "hwvtpm-engine")
		if _, err := os.Stat(c.engine); err != nil {
			c.engine = filepath.Join(bin, "../libexec/hwvtpm/hwvtpm-engine")
		}
	}
	for _, p := range []*string{&c.storeDir, &c.engine} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}
