// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/control/ca"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/aik"
	"hwvtpm/vtpm/hostpcr"
	"hwvtpm/vtpm/tpmlink"
)

// config is the command line, checked.
type config struct {
	dir, name string

	tpm             string
	keyType         aik.KeyType
	ownerAuth       string // files
	endorsementAuth string
	eventLog        string
	allowSHA1       bool
	coproc          string

	control   string
	controlCA string
	tokenFile string

	socket        string
	backendSocket string
	backendGID    int
	guestDir      string
	guestGID      int
	vsock         uint32 // port; 0: none
	vsockGuests   string
	listen        string
	tlsCert       string
	tlsKey        string
	certificates  string

	poll, pcrAge time.Duration

	metrics   string
	logLevel  string
	logFormat string
}

const usage = `Usage: vtpm-hostd --name HOST --control URL --control-ca FILE [flags]

Ties a host's coprocessor to the host's TPM, and that to the cloud's authority, and
answers guests, backends and operators.

Host:
  --name HOST          of this host, as the authority is to know it
  --dir DIR            what is kept (default /var/lib/hwvtpm/hostd): the
                       attestation key, of use in this TPM only, the key of TLS,
                       certificates
  --tpm ADDRESS        the host's TPM (default device:/dev/tpmrm0): device:PATH,
                       swtpm:PATH or swtpm:HOST:PORT
  --key-type ecc|rsa   of a new attestation key: P-256 or RSA-2048 (default ecc)
  --owner-auth FILE    the TPM's authorization values, if they are not empty;
  --endorsement-auth FILE  the files must be 0600
  --event-log FILE     the firmware's event log; "none": there is none, and
                       nothing can be mapped (default: the kernel's)
  --allow-sha1         map the SHA-1 bank of a host that has no better one
  --coproc SOCKET      coprocd's socket (default /run/hwvtpm/coprocd.sock)

Authority:
  --control URL        the control server, https://HOST[:PORT]
  --control-ca FILE    its root certificate (PEM), which the chains of this host
                       and of its machines lead to
  --token-file FILE    a token for the first enrolment, or for one after a
                       revocation; 0600, may be gone later

Doors:
  --socket PATH        of operators: root and this program's user (default
                       /run/hwvtpm/hostd.sock; "none": no such door)
  --backend-socket PATH  of the processes that run machines' devices
    --backend-group GROUP  who may connect (name or number)
  --guest-dir DIR      a socket NAME.sock for each machine, for QEMU to connect its
                       channel to
    --guest-group GROUP  who may connect
  --vsock PORT         guests by vsock
    --vsock-guests FILE  which machine has which CID: a line "CID NAME" for each;
                       read again at each connection
  --listen ADDRESS     guests by HTTPS, [HOST]:PORT
    --tls-cert FILE, --tls-key FILE  PEM; the key must be 0600
  --certificates DIR   certificates of host, coprocessor and machines are written
                       here for other programs (PEM)

Other:
  --poll TIME          how often the card is asked for its slots (default 2s)
  --pcr-age TIME       how old the values may be that machines are given for
                       mapping, and boot evidence that a machine is given again
                       (default 10s)
  --metrics ADDRESS    serve Prometheus metrics by HTTP: HOST:PORT or unix:PATH
  --log-level trace|debug|info|warn|error   (default info)
  --log-format text|json                    (default text)
  --version, --help

Exit codes: 0 ended in order; 1 failure; 2 wrong command line; 3 what is in --dir
can't be used: another process has it, or its key is of another TPM.
`

// none switches off what has a default.
const none = "none"

// options are what flags give in a form of their own.
type options struct{ key, vsock, backendGroup, guestGroup string }

func (c *config) flags(o *options) *flag.FlagSet {
	fs := cli.Flags("vtpm-hostd")
	for _, f := range []struct {
		p         *string
		name, def string
	}{
		{&c.dir, "dir", "/var/lib/hwvtpm/hostd"}, {&c.name, "name", ""}, {&c.tpm, "tpm", "device:/dev/tpmrm0"},
		{&o.key, "key-type", "ecc"}, {&c.ownerAuth, "owner-auth", ""}, {&c.endorsementAuth, "endorsement-auth", ""},
		{&c.eventLog, "event-log", hostpcr.DefaultLog}, {&c.coproc, "coproc", "/run/hwvtpm/coprocd.sock"},
		{&c.control, "control", ""}, {&c.controlCA, "control-ca", ""}, {&c.tokenFile, "token-file", ""},
		{&c.socket, "socket", "/run/hwvtpm/hostd.sock"}, {&c.backendSocket, "backend-socket", ""},
		{&o.backendGroup, "backend-group", ""}, {&c.guestDir, "guest-dir", ""}, {&o.guestGroup, "guest-group", ""},
		{&o.vsock, "vsock", ""}, {&c.vsockGuests, "vsock-guests", ""}, {&c.listen, "listen", ""},
		{&c.tlsCert, "tls-cert", ""}, {&c.tlsKey, "tls-key", ""}, {&c.certificates, "certificates", ""},
		{&c.metrics, "metrics", ""}, {&c.logLevel, "log-level", "info"}, {&c.logFormat, "log-format", "text"},
	} {
		fs.StringVar(f.p, f.name, f.def, "")
	}
	fs.DurationVar(&c.poll, "poll", 2*time.Second, "")
	fs.DurationVar(&c.pcrAge, "pcr-age", 10*time.Second, "")
	fs.BoolVar(&c.allowSHA1, "allow-sha1", false, "")
	return fs
}

// parseArgs reads the command line. It returns flag.ErrHelp after printing help or
// version to w.
func parseArgs(args []string, w io.Writer) (c config, err error) {
	var o options
	err = cli.ParseChecked(c.flags(&o), args, w, usage, func() error {
		return errors.Join(c.checkHost(o.key), c.checkAuthority(), c.checkDoors(&o), c.checkRest())
	})
	return c, err
}

func (c *config) checkHost(key string) error {
	if !ca.ValidName(c.name) {
		return fmt.Errorf("give this host's name as --name HOST: 1 to 63 letters, digits, dots, dashes and underscores, not %.80q", c.name)
	}
	switch key {
	case "ecc":
		c.keyType = aik.ECCP256
	case "rsa":
		c.keyType = aik.RSA2048
	default:
		return fmt.Errorf("--key-type %q is not ecc or rsa", key)
	}
	if err := tpmlink.Check(c.tpm); err != nil {
		return fmt.Errorf("--tpm: %w", err)
	}
	return nil
}

func (c *config) checkAuthority() error {
	if c.control == "" || c.controlCA == "" {
		return errors.New("give the authority as --control URL and --control-ca FILE")
	}
	return nil
}

func (c *config) checkDoors(o *options) (err error) {
	if c.backendGID, err = group(o.backendGroup); err != nil {
		return fmt.Errorf("--backend-group: %w", err)
	}
	if c.guestGID, err = group(o.guestGroup); err != nil {
		return fmt.Errorf("--guest-group: %w", err)
	}
	if (o.vsock == "") != (c.vsockGuests == "") {
		return errors.New("--vsock PORT and --vsock-guests FILE go together")
	}
	if o.vsock != "" {
		port, err := strconv.ParseUint(o.vsock, 10, 32)
		if err != nil || port == 0 || port > 1<<32-2 {
			return fmt.Errorf("--vsock %q is no port", o.vsock)
		}
		c.vsock = uint32(port)
	}
	if (c.listen == "") != (c.tlsCert == "") || (c.listen == "") != (c.tlsKey == "") {
		return errors.New("--listen ADDRESS, --tls-cert FILE and --tls-key FILE go together")
	}
	if c.listen != "" {
		if _, _, err := net.SplitHostPort(c.listen); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
	}
	return nil
}

func (c *config) checkRest() error {
	if c.poll <= 0 || c.pcrAge <= 0 {
		return errors.New("--poll and --pcr-age must be above zero")
	}
	if hclog.LevelFromString(c.logLevel) == hclog.NoLevel {
		return fmt.Errorf("--log-level %q is not trace, debug, info, warn or error", c.logLevel)
	}
	if c.logFormat != "text" && c.logFormat != "json" {
		return fmt.Errorf("--log-format %q is not text or json", c.logFormat)
	}
	return nil
}
