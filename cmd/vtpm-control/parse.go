// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"hwvtpm/control/api"
	"hwvtpm/control/enrol"
	"hwvtpm/internal/cli"
)

const usage = `Usage: vtpm-control [--dir DIR] [--json] COMMAND

Certifies attestation keys of hosts and vTPMs.

Server:
  init NAME               make an authority in DIR: keys, certificates, store.
                          NAME becomes part of the certificates' subjects
    --pkcs11 MODULE, --pkcs11-token LABEL, --pkcs11-pin FILE
                          keep the keys in a PKCS#11 token; the PIN stays in FILE
                          (only if built with -tags pkcs11)
  serve                   serve hosts, guests (HTTPS) and operators (a UNIX socket)
    --listen ADDRESS      of the HTTPS door (default :8443)
    --name NAME           DNS name or address by which clients reach it; may be
                          given more than once, and must be once
    --url URL             put URL/v1/crl/... into certificates, for verifiers
    --host-life DURATION  of hosts' certificates (default 720h)
    --vtpm-life DURATION  of vTPMs' certificates (default 168h)
    --burst N, --rate N   requests of one host or address in a row, and then in
                          a second (default 20 and 2)
    --policy FILE         by which evidence is judged that brings no policy
    --verify-limit BYTES  the largest request to judge evidence (default 2097152)
    --verify-burst N, --verify-rate N
                          like --burst and --rate, to judge evidence (default 200
                          and 50)

Who may enrol:
  token host|vtpm NAME    make a token and print it: this once
    --life DURATION       (default 1h)
    --reuse               good until it ends, rather than once
  allow host|vtpm NAME HASH
                          let the TPM with this endorsement key enrol as NAME
  pin HOST HASH           let the holder of this TLS key speak as HOST
  deny HASH               keep a key out: an endorsement key, a card's, an AIK
    --reason TEXT         shown to who is kept out
  key-hash FILE           the HASH of the key in a certificate (PEM or DER)

Certificates:
  revoke host|vtpm NAME   take back all of a host's or machine's certificates,
                          tokens, pins and allowances
  revoke serial SERIAL    take back one certificate
    --why REASON          unspecified, key-compromise, superseded or cessation
  list hosts|vms|certificates|tokens|policy
  crl root|attestation|service
                          the newest revocation list, PEM
  audit                   verify the audit log

Everywhere:
  --dir DIR               (default HWVTPM_CONTROL, else ` + defaultDir + `)
  --json                  print JSON
  --version, --help

Commands reach a running server through DIR/operator.sock; without one they open
the store themselves.

Exit codes: 0 done; 1 failure; 2 wrong command line; 3 not found; 5 another
process has DIR open.
`

const defaultDir = "/var/lib/hwvtpm/control"

// invocation is the command line, checked.
type invocation struct {
	con  *console
	cmd  command
	args []string // of the command
	dir  string
	json bool

	listen             string
	names              []string
	url                string
	hostLife, vtpmLife time.Duration
	burst, rate        float64
	policy             string
	verify             api.Verify
	life               time.Duration
	reuse              bool
	reason, why        string
	pkcs11             tokenConfig
}

// command is what the program can do.
type command struct {
	word  string
	args  int      // how many more words it takes
	flags []string // it takes beside those of all commands
	run   func(*invocation, context.Context) error
}

var commands = []command{
	{"init", 1, []string{"pkcs11", "pkcs11-token", "pkcs11-pin"}, (*invocation).init},
	{"serve", 0, []string{"listen", "name", "url", "host-life", "vtpm-life", "burst", "rate", "policy", "verify-limit", "verify-burst", "verify-rate"}, (*invocation).serve},
	{"token", 2, []string{"life", "reuse"}, (*invocation).token},
	{"allow", 3, nil, (*invocation).allow},
	{"pin", 2, nil, (*invocation).pin},
	{"deny", 1, []string{"reason"}, (*invocation).deny},
	{"key-hash", 1, nil, (*invocation).keyHash},
	{"revoke", 2, []string{"why"}, (*invocation).revoke},
	{"list", 1, nil, (*invocation).list},
	{"crl", 1, nil, (*invocation).crl},
	{"audit", 0, nil, (*invocation).audit},
}

var everywhere = []string{"dir", "json"}

// parse reads the command line. It prints help and version itself, and gives
// flag.ErrHelp then.
func parse(con *console, args []string) (*invocation, error) {
	lives := enrol.DefaultConfig()
	inv := &invocation{con: con, verify: api.DefaultVerify()}
	fs := cli.Flags("vtpm-control")
	fs.StringVar(&inv.dir, "dir", "", "")
	fs.BoolVar(&inv.json, "json", false, "")
	fs.StringVar(&inv.pkcs11.Module, "pkcs11", "", "")
	fs.StringVar(&inv.pkcs11.Token, "pkcs11-token", "", "")
	fs.StringVar(&inv.pkcs11.PINFile, "pkcs11-pin", "", "")
	fs.StringVar(&inv.listen, "listen", ":8443", "")
	fs.Func("name", "", func(s string) error { inv.names = append(inv.names, s); return nil })
	fs.StringVar(&inv.url, "url", "", "")
	fs.DurationVar(&inv.hostLife, "host-life", lives.HostLife, "")
	fs.DurationVar(&inv.vtpmLife, "vtpm-life", lives.VTPMLife, "")
	fs.Float64Var(&inv.burst, "burst", 20, "")
	fs.Float64Var(&inv.rate, "rate", 2, "")
	fs.StringVar(&inv.policy, "policy", "", "")
	fs.Int64Var(&inv.verify.Limit, "verify-limit", inv.verify.Limit, "")
	fs.Float64Var(&inv.verify.Burst, "verify-burst", inv.verify.Burst, "")
	fs.Float64Var(&inv.verify.Rate, "verify-rate", inv.verify.Rate, "")
	fs.DurationVar(&inv.life, "life", time.Hour, "")
	fs.BoolVar(&inv.reuse, "reuse", false, "")
	fs.StringVar(&inv.reason, "reason", "", "")
	fs.StringVar(&inv.why, "why", "unspecified", "")
	words, err := cli.ParseWords(fs, args, con.out, usage)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{con.getenv("HWVTPM_CONTROL"), defaultDir} {
		if inv.dir == "" {
			inv.dir = dir
		}
	}
	return inv, inv.setCommand(words, fs)
}

func (inv *invocation) setCommand(words []string, fs *flag.FlagSet) error {
	if len(words) == 0 {
		return cli.Hint(fs.Name(), errors.New("no command"))
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.word == words[0] })
	if i < 0 {
		return cli.Hint(fs.Name(), fmt.Errorf("no command is called %q", words[0]))
	}
	inv.cmd, inv.args = commands[i], words[1:]
	if len(inv.args) != inv.cmd.args {
		return cli.Usagef("%s takes %d words, not %d: %s", words[0], inv.cmd.args, len(inv.args), strings.Join(inv.args, " "))
	}
	var err error
	fs.Visit(func(f *flag.Flag) {
		if !slices.Contains(everywhere, f.Name) && !slices.Contains(inv.cmd.flags, f.Name) {
			err = cli.Usagef("%s takes no --%s", words[0], f.Name)
		}
	})
	return err
}
