// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
)

// attach makes a slot that is there already, such as one of 'vtpmctl import-swtpm',
// the TPM of the state directory dir. It is swtpm's state that such a directory may
// have, and nothing of ours.
func attach(ctx context.Context, s settings, dir, name, keyPath string, log hclog.Logger) (err error) {
	if s.socket == "" {
		return fmt.Errorf("--slot: no coprocd is configured: see %s", defaultSettings)
	}
	for _, file := range []string{placeFile, keyFile, cardDir} {
		if _, err := os.Lstat(filepath.Join(dir, file)); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s has a TPM already (%s)", dir, file), err)
		}
	}
	key, err := accesskey.Load(keyPath)
	if err != nil {
		return err
	}
	defer clear(key)
	p := place{Slot: name}
	err = withCard(ctx, s.socket, func(c *admin.Client) error {
		info, err := c.Show(ctx, name)
		p.ID = hex.EncodeToString(info.ID[:])
		return err
	})
	if err != nil {
		return fmt.Errorf("slot %s: %w", name, err)
	}
	text := accesskey.Marshal(key)
	defer clear(text)
	if err := replaceFile(dir, keyFile, text); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(filepath.Join(dir, keyFile)))
		}
	}()
	// Does the key open it, and is it nobody's now?
	t, err := openFree(ctx, s, dir, p, log)
	if err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := writePlace(dir, p); err != nil {
		return err
	}
	log.Info("the TPM of the directory is the slot", "slot", name, "dir", dir)
	return nil
}

// checkSlot checks what says which slot to attach.
func (c *setupConfig) checkSlot() error {
	switch {
	case c.slot == "" && c.slotKey == "":
		return nil
	case c.slot == "" || c.slotKey == "":
		return errors.New("--slot and --slot-key belong together")
	case !abi.ValidName(c.slot):
		return fmt.Errorf("--slot: %q is not the name of a slot", c.slot)
	case c.tpm.keys != 0 || c.overwrite || c.notOverwrite || c.reconfigure:
		return errors.New("--slot takes a TPM as it is: give none of --createek, --create-*, --overwrite, --not-overwrite, --reconfigure")
	}
	return nil
}
