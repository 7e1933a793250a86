// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"strings"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/internal/cli"
)

const usage = `Usage: vtpmctl [--socket PATH] [--json] COMMAND

Manages the vTPMs in the slots of a coprocessor card.

Card:
  card                    the card, its protection and its counters
  statement health        the same, signed by the card
  statement ek NAME       the endorsement keys of a slot, signed by the card
    --out FILE            keep the signed statement in a new FILE

Slots:
  slot list               all slots
  slot show NAME          one slot
  slot create NAME        make a slot with a new TPM
  slot clone SOURCE NAME --new-identity
                          make a slot with the contents of another that is not
                          open; endorsement keys and access key are new
    --keys LIST           keys to make: of rsa, p256, p384 (endorsement keys) and
                          srk, or none (default rsa,p256,p384,srk)
    --banks LIST          PCR banks: of sha1, sha256, sha384, sha512
                          (default sha256,sha384)
    --access-key FILE     bind the slot to this key (PEM, Ed25519, public or
                          private) instead of a new one
    --key-dir DIR         where the new key NAME.key goes (default HWVTPM_KEYS,
                          else /var/lib/hwvtpm/keys for root, else
                          ~/.config/hwvtpm/keys)
  slot destroy NAME       destroy a slot for ever; there must be no client
    --yes                 don't ask
    --receipt FILE        keep the card's signed receipt in a new FILE
  slot certify NAME       have the card certify the endorsement keys of a slot, and
                          write the certificates into the TPM; its machine has
                          to be shut down
  slot park NAME          put the TPM of an open slot to rest until it is used
  slot lock NAME          let nobody open the slot
  slot unlock NAME        undo lock
  slot adopt NAME --reason TEXT
                          accept state that is older than the card knows, such
                          as a restored backup; it is logged, and shows
    --restore             accept, once, the older state that a virtual machine
                          brings along when a snapshot or a saved machine is
                          restored next; the slot must not be open
  import-swtpm NAME --state DIR
                          make a slot with the TPM that swtpm keeps in DIR, with
                          its identity and contents; the machine has to be off
    --key FILE[,format=hex|binary][,mode=aes-cbc|aes-256-cbc]
                          swtpm's key file, as its --key file=
    --pwdfile FILE[,kdf=pbkdf2|sha512]
                          swtpm's passphrase, as its --key pwdfile=
    --banks LIST, --access-key FILE, --key-dir DIR
                          as above; the banks are those that the TPM has

TPM:
  raw --slot NAME         TPM commands on stdin, responses on stdout, until the
                          end of stdin. For tpm2-tools:
                            TPM2TOOLS_TCTI="cmd:vtpmctl raw --slot NAME"
    --key FILE            the slot's access key (default: NAME.key in --key-dir)
    --key-dir DIR         as above
    --run-id STRING       names the TPM's run. A TPM that is opened for the run
                          it is in goes on as it was; for another run its power
                          is cycled, so PCRs start over, and TPM2_Startup(CLEAR)
                          is sent. The default is the same from one call to the
                          next until the host boots, so PCRs and sessions last.
                          A virtual machine that uses the slot has its own run.
    --flush on|off        flush transient objects at the end, as a resource
                          manager does, lest the TPM's memory fills up
                          (default on)

Host:
  host                    the host's daemon, the certificates of host and card, and
                          what is wrong
  vm list                 the machines that have a slot
  vm show NAME            one machine: its certificates
    --hostd SOCKET        the daemon's socket (default HWVTPM_HOSTD, else
                          ` + defaultHostd + `)

Attestation:
  verify                  judge evidence of a machine and its host, one line for
                          each claim: held, failed, not claimed, or missing where
                          it is required; exit code 0 only if all required ones
                          are held
  policy learn            the same, and print a policy that accepts what the
                          evidence shows, together with what --policy accepts
    --evidence FILE       the evidence, - for stdin
    --nonce HEX           what the machine was asked with, 16 to 64 bytes
    --roots FILE          certificates (PEM) that all chains must lead to; may be
                          given several times, as may --crl
    --crl FILE            revocation lists (PEM or DER)
    --policy FILE         what is accepted (docs/attestation.md)
    --at TIME             judge as of then (RFC 3339), not now
    --out FILE            learn: write the policy to a new FILE

Everywhere:
  --socket PATH           the daemon's socket (default HWVTPM_SOCKET, else
                          ` + defaultSocket + `)
  --json                  print JSON
  --timeout DURATION      of a command to the card (default 2m)
  --version, --help

All but card, slot show, raw and attestation are for administrators of the card.

Exit codes: 0 done; 1 failure; 2 wrong command line; 3 no such slot; 4 denied;
5 the slot is in use.
`

// defaultSocket is where the daemon's unit puts it.
const defaultSocket = "/run/hwvtpm/coprocd.sock"

// invocation is the command line, checked.
type invocation struct {
	con     *console
	cmd     command
	args    []string // of the command
	socket  string
	json    bool
	timeout time.Duration

	keys      abi.Keys
	banks     abi.Banks
	accessKey string // file
	keyDir    string
	newID     bool
	yes       bool
	out       string // file
	reason    string
	restore   bool
	state     string // directory of swtpm
	pwdfile   string // file and options
	slot      string
	key       string // file
	runID     string
	flush     bool
	hostd     string // socket
	verify    verification
}

// command is what the program can do.
type command struct {
	words string   // that name it
	args  int      // how many more words it takes
	flags []string // it takes beside those of all commands
	run   func(*invocation, context.Context) error
}

var commands = []command{
	{"card", 0, nil, (*invocation).card},
	{"statement health", 0, []string{"out"}, (*invocation).statementHealth},
	{"statement ek", 1, []string{"out"}, (*invocation).statementEK},
	{"slot list", 0, nil, (*invocation).list},
	{"slot show", 1, nil, (*invocation).show},
	{"slot create", 1, []string{"keys", "banks", "access-key", "key-dir"}, (*invocation).create},
	{"slot clone", 2, []string{"keys", "banks", "access-key", "key-dir", "new-identity"}, (*invocation).clone},
	{"slot destroy", 1, []string{"yes", "receipt"}, (*invocation).destroy},
	{"slot certify", 1, nil, (*invocation).certify},
	{"slot park", 1, nil, (*invocation).park},
	{"slot lock", 1, nil, (*invocation).lock},
	{"slot unlock", 1, nil, (*invocation).unlock},
	{"slot adopt", 1, []string{"reason", "restore"}, (*invocation).adopt},
	{"import-swtpm", 1, []string{"state", "key", "pwdfile", "banks", "access-key", "key-dir"}, (*invocation).importSwtpm},
	{"host", 0, []string{"hostd"}, (*invocation).hostStatus},
	{"vm list", 0, []string{"hostd"}, (*invocation).vmList},
	{"vm show", 1, []string{"hostd"}, (*invocation).vmShow},
	{"verify", 0, verifyFlags, (*invocation).verifyEvidence},
	{"policy learn", 0, append([]string{"out"}, verifyFlags...), (*invocation).policyLearn},
	{"raw", 0, []string{"slot", "key", "key-dir", "run-id", "flush"}, (*invocation).raw},
}

var everywhere = []string{"socket", "json", "timeout"}

// parse reads the command line. It prints help and version itself, and gives
// flag.ErrHelp then.
func parse(con *console, args []string) (*invocation, error) {
	inv := &invocation{con: con}
	var keys, banks, flush string
	fs := cli.Flags("vtpmctl")
	fs.StringVar(&inv.socket, "socket", "", "")
	fs.BoolVar(&inv.json, "json", false, "")
	fs.DurationVar(&inv.timeout, "timeout", 2*time.Minute, "")
	fs.StringVar(&keys, "keys", abi.DefaultKeys.String(), "")
	fs.StringVar(&banks, "banks", abi.DefaultBanks.String(), "")
	fs.StringVar(&inv.accessKey, "access-key", "", "")
	fs.StringVar(&inv.keyDir, "key-dir", "", "")
	fs.BoolVar(&inv.newID, "new-identity", false, "")
	fs.BoolVar(&inv.yes, "yes", false, "")
	fs.StringVar(&inv.out, "out", "", "")
	fs.StringVar(&inv.out, "receipt", "", "")
	fs.StringVar(&inv.reason, "reason", "", "")
	fs.BoolVar(&inv.restore, "restore", false, "")
	fs.StringVar(&inv.state, "state", "", "")
	fs.StringVar(&inv.pwdfile, "pwdfile", "", "")
	fs.StringVar(&inv.slot, "slot", "", "")
	fs.StringVar(&inv.key, "key", "", "")
	fs.StringVar(&inv.runID, "run-id", "", "")
	fs.StringVar(&flush, "flush", "on", "")
	fs.StringVar(&inv.hostd, "hostd", "", "")
	inv.verify.define(fs)
	words, err := cli.ParseWords(fs, args, con.out, usage)
	if err != nil {
		return nil, err
	}
	return inv, errors.Join(inv.setCommand(words, fs), inv.setChoices(keys, banks, flush))
}

// setCommand finds the command, and checks that it takes these words and flags.
func (inv *invocation) setCommand(words []string, fs *flag.FlagSet) error {
	line := strings.Join(words, " ")
	for _, c := range commands {
		rest, ok := strings.CutPrefix(line+" ", c.words+" ")
		if !ok {
			continue
		}
		inv.cmd, inv.args = c, strings.Fields(rest)
		if len(inv.args) != c.args {
			return cli.Usagef("%s takes %d more words, not %d (see --help)", c.words, c.args, len(inv.args))
		}
		return inv.checkFlags(fs)
	}
	if line == "" {
		return cli.Usagef("give a command, or --help")
	}
	return cli.Usagef("%q is no command (see --help)", line)
}

func (inv *invocation) checkFlags(fs *flag.FlagSet) error {
	taken := map[string]bool{}
	for _, name := range append(everywhere, inv.cmd.flags...) {
		taken[name] = true
	}
	var err error
	fs.Visit(func(f *flag.Flag) {
		if !taken[f.Name] {
			err = cli.Usagef("%s does not take --%s (see --help)", inv.cmd.words, f.Name)
		}
	})
	return err
}

func (inv *invocation) setChoices(keys, banks, flush string) (err error) {
	if inv.keys, err = abi.ParseKeys(keys); err != nil {
		return cli.Usagef("--keys: %w", err)
	}
	if inv.banks, err = abi.ParseBanks(banks); err != nil {
		return cli.Usagef("--banks: %w", err)
	}
	if flush != "on" && flush != "off" {
		return cli.Usagef("--flush %q is not on or off", flush)
	}
	inv.flush = flush == "on"
	if inv.socket == "" {
		inv.socket = inv.con.getenv("HWVTPM_SOCKET")
	}
	if inv.socket == "" {
		inv.socket = defaultSocket
	}
	return nil
}

func (inv *invocation) run(ctx context.Context) error { return inv.cmd.run(inv, ctx) }
