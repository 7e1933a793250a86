// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
)

const setupUsage = `Usage: swtpm_setup --tpm2 --tpm-state DIR [options]

Makes the TPM 2.0 of a state directory: a slot of coprocd's card, or a simulated
card in DIR itself (see swtpm socket --help).

  --tpm2                    required: there is no TPM 1.2
  --tpm-state DIR           the state directory ('dir://' may stand before it)
  --vmid ID                 names the slot, by the UUID in it
  --createek                make the endorsement keys: RSA-2048, P-256, P-384
  --create-spk              make the storage root key
  --create-ek-cert, --create-platform-cert
                            as --createek. The card certifies them if vtpm-hostd
                            has certified the card, asked for or not; the log says
                            so if it has not. There are no platform certificates
  --lock-nvram              says what is so anyway: there is nothing to lock
  --pcr-banks LIST          of sha1, sha256, sha384, sha512; '-' for all, or
                            for those that are there (default sha256,sha384)
  --overwrite               replace a TPM that is there: it is destroyed
  --not-overwrite           leave a TPM that is there, without an error
  --reconfigure             change the PCR banks of a TPM that is there
  --slot NAME --slot-key FILE
                            make a slot that is there already the TPM of DIR, such
                            as one of 'vtpmctl import-swtpm'; swtpm has no such
                            option. DIR gets a copy of the access key
  --rsa-keysize 2048, --decryption
                            say what is so anyway
  --logfile FILE            (default standard error)
  --runas USER              become USER first
  --tpm, --swtpm_ioctl, --tcsd-system-ps-file
                            have no effect: nothing else is run
  --print-capabilities, --version, -h, --help
`

// defaultKeys are what a state directory without swtpm_setup gets.
const defaultKeys = abi.KeyRSAEK | abi.KeyP256EK | abi.KeyP384EK

// setupConfig is the command line of swtpm_setup, checked.
type setupConfig struct {
	state        string
	tpm          newTPM
	overwrite    bool
	notOverwrite bool
	reconfigure  bool
	keepBanks    bool // --pcr-banks -
	slot         string
	slotKey      string
	log          logConfig
	runAs        string
}

func parseSetup(con *console, args []string) (*setupConfig, error) {
	c := &setupConfig{log: stderrLog()}
	c.tpm.banks = abi.DefaultBanks
	var tpm2, ek, ekCert, platformCert, spk, caps, version, help, ignored bool
	var ignoredWord string
	const ownership = "the owner hierarchy is the guest's to take"
	err := parseOptions(args, []option{
		{names: []string{"--tpm2"}, flag: &tpm2},
		{names: []string{"--tpm-state", "--tpmstate"}, value: func(v string) (err error) { c.state, err = stateDir(v); return err }},
		{names: []string{"--vmid"}, word: &c.tpm.vmID},
		{names: []string{"--createek"}, flag: &ek},
		{names: []string{"--create-ek-cert"}, flag: &ekCert},
		{names: []string{"--create-platform-cert"}, flag: &platformCert},
		{names: []string{"--create-spk"}, flag: &spk},
		{names: []string{"--lock-nvram", "--decryption"}, flag: &ignored},
		{names: []string{"--pcr-banks"}, value: c.setBanks},
		{names: []string{"--overwrite"}, flag: &c.overwrite},
		{names: []string{"--not-overwrite"}, flag: &c.notOverwrite},
		{names: []string{"--reconfigure"}, flag: &c.reconfigure},
		{names: []string{"--slot"}, word: &c.slot},
		{names: []string{"--slot-key"}, word: &c.slotKey},
		{names: []string{"--rsa-keysize"}, value: only("2048")},
		{names: []string{"--logfile"}, word: &c.log.file},
		{names: []string{"--runas"}, word: &c.runAs},
		{names: []string{"--tpm", "--swtpm_ioctl", "--tcsd-system-ps-file"}, word: &ignoredWord},
		refuse(ownership, "--take-ownership", "--ownerpass", "--owner-well-known", "--srkpass", "--srk-well-known"),
		refuse(swtpmKeys, "--keyfile", "--keyfile-fd", "--pwdfile", "--pwdfile-fd", "--cipher"),
		refuse("'vtpmctl slot show' has the certificates", "--write-ek-cert-files"),
		refuse("there is no such file", "--config", "--create-config-files"),
		refuse("the endorsement keys are the TCG's standard ones", "--allow-signing", "--ecc"),
		refuse("use tpm2_getcap", "--display"),
		refuse("it is the TPM's own, and there is one", "--profile", "--profile-name", "--profile-file", "--profile-file-fd"),
		{names: []string{"--print-capabilities"}, flag: &caps},
		{names: []string{"--version"}, flag: &version},
		{names: []string{"-h", "--help"}, flag: &help},
	})
	switch {
	case err != nil:
		return nil, err
	case help:
		io.WriteString(con.out, setupUsage)
		return nil, errPrinted
	case version:
		return nil, printVersion(con)
	case caps:
		return nil, printCapabilities(con, "swtpm_setup", setupFeatures)
	}
	c.tpm.certs = ekCert || platformCert
	if ek || c.tpm.certs {
		c.tpm.keys |= defaultKeys
	}
	if spk {
		c.tpm.keys |= abi.KeySRK
	}
	return c, c.check(tpm2)
}

func (c *setupConfig) setBanks(v string) (err error) {
	if c.keepBanks = v == "-"; c.keepBanks {
		c.tpm.banks = abi.BankSHA1 | abi.BankSHA256 | abi.BankSHA384 | abi.BankSHA512
		return nil
	}
	c.tpm.banks, err = abi.ParseBanks(v)
	return err
}

func (c *setupConfig) check(tpm2 bool) error {
	switch {
	case !tpm2:
		return errors.New("a TPM 1.2 is not supported: give --tpm2")
	case c.state == "":
		return errors.New("give the state directory: --tpm-state DIR")
	case c.overwrite && (c.notOverwrite || c.reconfigure):
		return errors.New("--overwrite contradicts --not-overwrite and --reconfigure")
	case c.reconfigure && c.tpm.keys != 0:
		return errors.New("--reconfigure makes no keys and certificates: give none of --createek, --create-*")
	}
	return c.checkSlot()
}

// swtpmSetup is the program swtpm_setup.
func swtpmSetup(ctx context.Context, con *console, args []string) error {
	cfg, err := parseSetup(con, args)
	if err != nil {
		return err
	}
	if err := become(cfg.runAs); err != nil {
		return err
	}
	log, err := cfg.log.open("swtpm_setup")
	if err != nil {
		return err
	}
	s, err := readSettings(con.getenv)
	if err == nil {
		err = cfg.run(ctx, s, log)
	}
	if err != nil && cfg.log.file != "" {
		log.Error("failed", "error", err) // the caller prints it as well
	}
	return err
}

func (c *setupConfig) run(ctx context.Context, s settings, log hclog.Logger) error {
	if c.slot != "" {
		return attach(ctx, s, c.state, c.slot, c.slotKey, log)
	}
	old, err := readPlace(c.state)
	switch {
	case errors.Is(err, errNoPlace) && c.reconfigure:
		return fmt.Errorf("%s: %w", c.state, err)
	case errors.Is(err, errNoPlace):
		return c.create(ctx, s, log)
	case err != nil:
		return err
	case c.reconfigure && c.keepBanks:
		return nil
	case c.reconfigure:
		return c.changeBanks(ctx, s, old, log)
	case c.notOverwrite:
		log.Info("there is a TPM already, which is left as it is", "dir", c.state)
		return nil
	case !c.overwrite:
		return fmt.Errorf("%s has a TPM already: give --overwrite to destroy it, or --not-overwrite", c.state)
	}
	if err := destroy(ctx, s, c.state, old, log); err != nil {
		return err
	}
	return c.create(ctx, s, log)
}

func (c *setupConfig) create(ctx context.Context, s settings, log hclog.Logger) error {
	_, err := createTPM(ctx, s, c.state, c.tpm, log)
	return err
}

// changeBanks changes the PCR banks of the TPM that is there.
func (c *setupConfig) changeBanks(ctx context.Context, s settings, p place, log hclog.Logger) error {
	t, err := openFree(ctx, s, c.state, p, log)
	if err != nil {
		return err
	}
	w, err := begin(ctx, t.slot)
	if err == nil {
		err = w.allocate(c.tpm.banks)
	}
	if err == nil {
		err = w.end()
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return err
	}
	log.Info("the PCR banks are set", "banks", c.tpm.banks.String())
	return nil
}

// destroy destroys the TPM of dir for ever.
func destroy(ctx context.Context, s settings, dir string, p place, log hclog.Logger) error {
	if p.Slot == "" {
		// The card's lock says whether somebody uses it.
		t, err := openFree(ctx, s, dir, p, log)
		if err != nil {
			return err
		}
		if err := t.Close(); err != nil {
			return err
		}
	} else if err := destroySlot(ctx, s, p); err != nil {
		return err
	}
	log.Warn("the TPM that was there is destroyed", "dir", dir, "slot", p.Slot)
	var errs []error
	for _, name := range []string{placeFile, keyFile, cardDir} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(append(errs, syncDir(dir))...)
}

func destroySlot(ctx context.Context, s settings, p place) error {
	return withCard(ctx, s.socket, func(c *admin.Client) error {
		info, err := c.Show(ctx, p.Slot)
		if errors.Is(err, coproc.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if hex.EncodeToString(info.ID[:]) != p.ID {
			return fmt.Errorf("slot %s is another TPM than the one of this directory, and is left alone", p.Slot)
		}
		_, _, err = c.Destroy(ctx, info)
		return err
	})
}
