// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/sealed/hosttpm"
	"hwvtpm/internal/durable"
)

// Reseal seals the storage key of the card in dir anew, from cfg.Backup, under
// cfg.PCRs as they are now: after the host's firmware or boot loader has changed.
// A backup that does not open the card's table is refused, and nothing has changed
// then.
func Reseal(cfg HostTPM, dir string) error {
	if cfg.Backup == "" {
		return fmt.Errorf("seal the key anew: a backup of it is needed: %w", fs.ErrInvalid)
	}
	backup := sealed.OpenKeyFile(cfg.Backup)
	if err := fits(backup, dir); err != nil {
		return fmt.Errorf("seal the key anew from %s: %w", cfg.Backup, err)
	}
	key, err := backup.Key()
	if err != nil {
		return err
	}
	defer key.Clear()
	path := filepath.Join(dir, keyTPMName)
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("seal the key anew: %w", err)
	}
	if _, err := hosttpm.SealKey(cfg.TPM, fresh, key, cfg.PCRs); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("seal the key anew: %w", err)
	}
	return durable.SyncDir(dir)
}

// fits checks that a key is that of the card in dir.
func fits(src sealed.KeySource, dir string) error {
	keys, err := sealed.OpenStore(src)
	if err != nil {
		return err
	}
	defer keys.Close()
	card, err := keys.Slot(sealed.SlotID{})
	if err != nil {
		return err
	}
	defer card.Close()
	table, err := sealed.NewFile(filepath.Join(dir, tableName)).Read()
	if err == nil {
		_, _, err = card.Open(nil, sealed.KindTable, table)
	}
	return err
}
