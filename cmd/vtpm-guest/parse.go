// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hwvtpm/guest/attester"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/tpmlink"
)

const usage = `Usage: vtpm-guest COMMAND [OPTIONS]

Attests the virtual machine that it runs in, by its vTPM.

Commands:
  enrol                   make an attestation key, if there is none, and have it
                          certified; again: renew the certificate
    --name NAME           the machine's (default: what the EK's certificate says)
    --token-file FILE     the control server's token for this machine
    --if-due              only if half of the certificate's life is over
    --control URL         enrol at this control server itself, not by the host
    --control-ca FILE     its authority's root, PEM
  attest                  answer a verifier: print evidence, JSON
    --nonce HEX           the verifier's, 16 to 64 bytes
    --pcrs LIST           of the quote, as 0-7,14 (default 0-15)
    --bank NAME[,NAME]    of the quote: sha1, sha256, sha384, sha512 (default: all
                          that the TPM has; what the host's TPM has is needed for
                          the claim that PCR 0-7 are the host's)
    --pcr-map MODE        what PCR 0-7 are: map, evidence or off (default: the
                          host says)
    --event-log FILE      firmware's event log, or "none" (default
                          ` + attester.EventLog + `,
                          if it is there)
  show                    the endorsement and the attestation key's certificates
    --json                print JSON

Everywhere:
  --tpm ADDRESS           device:/dev/tpmrm0 (the default), swtpm:PATH,
                          swtpm:HOST:PORT
  --dir DIR               of the key's blobs and its certificate (default
                          ` + defaultDir + `)
  --timeout DURATION      (default 2m)
  --version, --help

The way to the host (enrol, attest):
  --via serial:PATH       a virtio-serial port (the default:
                          ` + defaultVia + `)
  --via vsock:CID:PORT    a port of vsock; the host is CID 2
  --via unix:PATH         a UNIX socket
  --via https://HOST:PORT
    --ca FILE             the authority of the host's certificate, PEM

Exit codes: 0 done; 1 failure; 2 wrong command line; 3 not enrolled, or no vTPM, or
no certificate of its endorsement key; 4 refused by the host or the control server;
5 they do not answer, or are busy.
`

const (
	defaultTPM = "device:/dev/tpmrm0"
	defaultDir = "/var/lib/hwvtpm-guest"
	defaultVia = "serial:/dev/virtio-ports/org.hwvtpm.door.0"
)

// invocation is the command line, checked.
type invocation struct {
	con     *console
	run     func(*invocation, context.Context) error
	tpm     string
	dir     string
	timeout time.Duration
	json    bool

	via, ca            string
	name, tokenFile    string
	control, controlCA string
	ifDue              bool

	nonce     []byte
	selection attester.Selection
	mode      attest.Mode
	eventLog  string
}

// start runs the command within its time.
func (inv *invocation) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, inv.timeout)
	defer cancel()
	return inv.run(inv, ctx)
}

// parse reads the command line. It prints help and version itself, and gives
// flag.ErrHelp then.
func parse(con *console, args []string) (*invocation, error) {
	inv := &invocation{con: con}
	word := ""
	if len(args) > 0 {
		word, args = args[0], args[1:]
	}
	fs := cli.Flags("vtpm-guest")
	switch word {
	case "--help", "-help", "-h", "--version", "-version":
		return nil, cli.Parse(fs, []string{word}, con.out, usage)
	case "help":
		return nil, cli.Parse(fs, []string{"--help"}, con.out, usage)
	case "enrol":
		inv.run = (*invocation).enrol
		inv.enrolFlags(fs)
	case "attest":
		inv.run = (*invocation).attest
		inv.attestFlags(fs)
	case "show":
		inv.run = (*invocation).show
		fs.BoolVar(&inv.json, "json", false, "")
	default:
		return nil, cli.Hint(fs.Name(), fmt.Errorf("no command is called %q", word))
	}
	fs.StringVar(&inv.tpm, "tpm", defaultTPM, "")
	fs.StringVar(&inv.dir, "dir", defaultDir, "")
	fs.DurationVar(&inv.timeout, "timeout", 2*time.Minute, "")
	if err := cli.Parse(fs, args, con.out, usage); err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	if fs.NArg() > 0 {
		return nil, cli.Usagef("%s takes no more words: %q", word, fs.Arg(0))
	}
	return inv, inv.check(word)
}

func (inv *invocation) enrolFlags(fs *flag.FlagSet) {
	inv.viaFlags(fs)
	fs.StringVar(&inv.name, "name", "", "")
	fs.StringVar(&inv.tokenFile, "token-file", "", "")
	fs.BoolVar(&inv.ifDue, "if-due", false, "")
	fs.StringVar(&inv.control, "control", "", "")
	fs.StringVar(&inv.controlCA, "control-ca", "", "")
}

func (inv *invocation) attestFlags(fs *flag.FlagSet) {
	inv.viaFlags(fs)
	fs.Func("nonce", "", func(s string) (err error) {
		inv.nonce, err = hex.DecodeString(s)
		return err
	})
	fs.Func("pcrs", "", func(s string) (err error) {
		inv.selection.PCRs, err = parsePCRs(s)
		return err
	})
	fs.Func("bank", "", func(s string) error {
		inv.selection.Banks = append(inv.selection.Banks, strings.Split(s, ",")...)
		return nil
	})
	fs.StringVar((*string)(&inv.mode), "pcr-map", "", "")
	fs.StringVar(&inv.eventLog, "event-log", "", "")
}

func (inv *invocation) viaFlags(fs *flag.FlagSet) {
	fs.StringVar(&inv.via, "via", "", "")
	fs.StringVar(&inv.ca, "ca", "", "")
}

// check finds what is wrong with the command line as a whole.
func (inv *invocation) check(word string) error {
	if strings.HasPrefix(inv.tpm, "/") {
		inv.tpm = "device:" + inv.tpm
	}
	if err := tpmlink.Check(inv.tpm); err != nil {
		return cli.Usagef("--tpm: %w", err)
	}
	if inv.timeout <= 0 {
		return cli.Usagef("--timeout %v is no time", inv.timeout)
	}
	if (inv.control == "") != (inv.controlCA == "") {
		return cli.Usagef("--control and --control-ca belong together")
	}
	if inv.via == "" && inv.control == "" {
		inv.via = defaultVia
	}
	if inv.via != "" {
		if _, err := parseVia(inv.via, inv.ca); err != nil {
			return cli.Usagef("--via: %w", err)
		}
	}
	if word == "attest" {
		return inv.checkAttest()
	}
	return nil
}

func (inv *invocation) checkAttest() error {
	if err := attest.CheckNonce(inv.nonce); err != nil {
		return cli.Usagef("--nonce: %w", err)
	}
	if err := inv.selection.Check(); err != nil {
		return cli.Usagef("--pcrs, --bank: %w", err)
	}
	switch inv.mode {
	case "", attest.ModeMap, attest.ModeEvidence, attest.ModeOff:
		return nil
	}
	return cli.Usagef("--pcr-map %q is not map, evidence or off", inv.mode)
}

// parsePCRs reads a list as 0-7,14.
func parsePCRs(s string) ([]uint, error) {
	var all []uint
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("%q is no PCR", part)
		}
		last, err := strconv.ParseUint(to, 10, 8)
		if err != nil || last < first {
			return nil, fmt.Errorf("%q is no range of PCRs", part)
		}
		for n := first; n <= last; n++ {
			all = append(all, uint(n))
		}
	}
	return all, nil
}
