// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// What a state directory holds. The TPM's state is in none of these files but
// for a card of the directory's own.
const (
	placeFile = "hwvtpm.json"     // which slot
	keyFile   = "hwvtpm.key"      // its access key
	cardDir   = "hwvtpm-card"     // the simulated card, if coprocd has no part in it
	maxPlace  = 4096              // bytes
	formatNow = 1                 // of placeFile
	swtpmFile = "tpm2-00.permall" // swtpm's own state
)

// place says where the TPM of a state directory is.
type place struct {
	Format int    `json:"format"`
	Slot   string `json:"slot,omitempty"` // of coprocd's card; empty: a card in cardDir
	ID     string `json:"id,omitempty"`   // of the slot, hexadecimal
}

// errNoPlace: the directory has no TPM yet.
var errNoPlace = errors.New("the state directory has no TPM")

// readPlace reads where the TPM of dir is. State of swtpm's own is refused: it
// must not be shadowed by a new TPM.
func readPlace(dir string) (place, error) {
	text, err := os.ReadFile(filepath.Join(dir, placeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return place{}, checkFresh(dir)
	}
	if err != nil {
		return place{}, err
	}
	var p place
	if len(text) > maxPlace {
		return p, fmt.Errorf("%s has %d bytes", placeFile, len(text))
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("%s: %w", placeFile, err)
	}
	if p.Format != formatNow || p.Slot != "" && !abi.ValidName(p.Slot) {
		return p, fmt.Errorf("%s of %s is of no known form", placeFile, dir)
	}
	if p.Slot != "" {
		return p, nil
	}
	// A simulated card that finds nothing would make a new TPM.
	if _, err := os.Stat(filepath.Join(dir, cardDir, "state")); err != nil {
		return p, fmt.Errorf("the TPM's state is missing, restore it from a backup: %w", err)
	}
	return p, nil
}

// checkFresh gives errNoPlace if dir is there and has no TPM of anybody's.
func checkFresh(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("state directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("state directory: %s is no directory", dir)
	}
	for _, name := range []string{swtpmFile, "tpm-00.permall"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%s has a TPM of swtpm's (%s): bring it into a slot with 'vtpmctl import-swtpm' and 'swtpm_setup --slot', or start a new TPM in an empty directory", dir, name)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, cardDir)); err == nil {
		return fmt.Errorf("%s has %s but no %s: files are missing, restore them from a backup", dir, cardDir, placeFile)
	}
	return errNoPlace
}

// writePlace makes the TPM of p that of dir. It is durable on return.
func writePlace(dir string, p place) error {
	p.Format = formatNow
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return replaceFile(dir, placeFile, append(text, '\n'))
}

// replaceFile replaces a small file as a whole. One that root makes is the directory's
// owner's, who runs swtpm.
func replaceFile(dir, name string, text []byte) (err error) {
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, giveToOwner(f, dir), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func giveToOwner(f *os.File, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || os.Geteuid() != 0 {
		return err
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
