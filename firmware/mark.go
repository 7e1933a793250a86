// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hwvtpm/firmware/sealed"
)

// mark notes in the lock file which TPM lives here, so that a state file that
// was lost, or exchanged for another TPM's, is noticed.
func (d *stateDir) mark(id [16]byte) error {
	_, err := d.lock.WriteAt(hex.AppendEncode(nil, id[:]), 0)
	if err == nil {
		err = d.lock.Sync()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.lock.Name(), err)
	}
	return nil
}

// checkMark compares the mark with the state file's slot id. A creation that
// was cut short behind the state file has left no mark; it is made up for.
func (d *stateDir) checkMark(id [16]byte) error {
	mark, err := d.readMark()
	switch {
	case err != nil:
		return err
	case len(mark) == 0:
		return d.mark(id)
	case !bytes.Equal(mark, hex.AppendEncode(nil, id[:])):
		return fmt.Errorf("the state file is of TPM %x, but the directory belongs to %q: restore the right state; or, if the exchange is meant, remove %q and %q: %w",
			id, mark, lockName, volatileName, errForeign)
	}
	return nil
}

func (d *stateDir) readMark() ([]byte, error) {
	b, err := io.ReadAll(io.NewSectionReader(d.lock, 0, 64))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.lock.Name(), err)
	}
	return b, nil
}

// isNew tells whether a TPM may be made here: there is nothing but what a
// creation that was cut short leaves. That may be a key, with which no state was
// sealed that anybody was told of. Without a state file, anything else means
// that a state was lost, which is an error.
func (d *stateDir) isNew() (bool, error) {
	entries, err := d.dir.ReadDir(-1)
	if err != nil {
		return false, fmt.Errorf("read state directory: %w", err)
	}
	mark, err := d.readMark()
	if err != nil {
		return false, err
	}
	stray := ""
	for _, e := range entries {
		switch {
		case e.Name() == stateName:
			return false, nil
		case slices.Contains([]string{lockName, keyName, stateTmpName}, e.Name()), isKeyTmp(e.Name()):
		default:
			stray = e.Name()
		}
	}
	if len(mark) > 0 && stray == "" {
		stray = lockName
	}
	if stray != "" {
		return false, fmt.Errorf("%s has no %q file but holds %q: restore the state from a backup, or name an empty directory to make a new TPM: %w",
			d.path, stateName, stray, errCorrupt)
	}
	return true, nil
}

// isKeyTmp tells whether a file is what a crash leaves that comes while a key is
// written. It may hold the key, but the key was never used.
func isKeyTmp(name string) bool {
	return strings.HasPrefix(name, keyName+".") && strings.HasSuffix(name, ".tmp")
}

// makeKey makes the key of a new directory, or takes the one that a creation
// that was cut short has left.
func (d *stateDir) makeKey() error {
	left, err := filepath.Glob(filepath.Join(d.path, keyName+".*.tmp"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return fmt.Errorf("remove what is left of a key: %w", err)
	}
	key := sealed.NewKey()
	defer key.Clear()
	_, err = sealed.CreateKeyFile(filepath.Join(d.path, keyName), key)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// seals gives the sealer of a TPM, from the key in the directory.
func (d *stateDir) seals(id sealed.SlotID) (*sealed.Slot, error) {
	store, err := sealed.OpenStore(sealed.OpenKeyFile(filepath.Join(d.path, keyName)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", sealed.ErrWrongKey, err)
	}
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.Slot(id)
}
