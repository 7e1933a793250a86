// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/firmware/card"
	"hwvtpm/firmware/card/store"
	"hwvtpm/firmware/sealed/hosttpm"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/tpmlink"
)

const defaultPCRs = "sha256:0,2,7"

// setProtection checks how the card's key and counter are kept.
func (c *config) setProtection(pcrs, index string) error {
	if c.hostTPM == "" {
		if pcrs != "" || index != "" || c.backup != "" || c.reseal {
			return errors.New("--pcrs, --nv-index, --key-backup and --reseal need --host-tpm")
		}
		return nil
	}
	if c.keyFile != "" {
		return errors.New("give either --key-file or --host-tpm")
	}
	if c.reseal && c.backup == "" {
		return errors.New("--reseal needs --key-backup")
	}
	if err := tpmlink.Check(c.hostTPM); err != nil {
		return fmt.Errorf("--host-tpm: %w", err)
	}
	if pcrs == "" {
		pcrs = defaultPCRs
	}
	var err error
	if c.pcrs, err = parsePCRs(pcrs); err != nil {
		return fmt.Errorf("--pcrs %q: %w", pcrs, err)
	}
	if index != "" {
		n, err := strconv.ParseUint(index, 0, 32)
		if err != nil || n>>24 != 1 {
			return fmt.Errorf("--nv-index %q is not the number of an NV index, such as 0x01801a75", index)
		}
		c.index = hosttpm.Index(n)
	}
	return nil
}

// parsePCRs reads a selection in the form of the TPM tools: "sha256:0,2,7".
func parsePCRs(s string) (hosttpm.Selection, error) {
	name, list, ok := strings.Cut(s, ":")
	bank, known := map[string]tpm2.TPMAlgID{"sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384}[name]
	if !ok || !known {
		return hosttpm.Selection{}, errors.New("bank is neither sha256 nor sha384")
	}
	sel := hosttpm.Selection{Bank: bank}
	for f := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(f, 10, 8)
		if err != nil || n > 23 {
			return hosttpm.Selection{}, fmt.Errorf("%q is not a PCR from 0 to 23", f)
		}
		sel.PCRs = append(sel.PCRs, uint(n))
	}
	return sel, nil
}

// openProtection opens the host's TPM if it is needed. The closer is not nil.
func openProtection(c *config) (card.Protection, io.Closer, error) {
	if c.hostTPM == "" {
		return card.FileProtection(c.keyFile), io.NopCloser(nil), nil
	}
	t, err := tpmlink.Open(c.hostTPM)
	if err != nil {
		return nil, nil, fmt.Errorf("host TPM: %w", err)
	}
	host := card.HostTPM{TPM: hosttpm.TPM{Transport: t}, PCRs: c.pcrs, Index: c.index, Backup: c.backup}
	if c.reseal {
		if err := store.Reseal(host, c.storeDir); err != nil {
			t.Close()
			return nil, nil, cli.Lasting(err)
		}
	}
	return card.TPMProtection(host), t, nil
}

// keyName says where the key is, for the log.
func (c *config) keyName() string {
	switch {
	case c.hostTPM != "":
		return "sealed by the host's TPM at " + c.hostTPM
	case c.keyFile != "":
		return "in clear in " + c.keyFile
	}
	return "in clear in " + filepath.Join(c.storeDir, "key")
}
