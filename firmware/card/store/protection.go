// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io/fs"
	"path/filepath"

	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/sealed/hosttpm"
)

// Names of the files of a protection.
const (
	keyName     = "key"
	keyTPMName  = "key.tpm"
	counterName = "counter"
)

// counterPurpose derives the authorization value of the card's counter.
const counterPurpose = "anchor counter"

// Protection says how a card keeps its storage key and its counter.
type Protection interface {
	// Create makes key and counter of a new card. It replaces nothing.
	Create(dir string) (*sealed.Store, sealed.Counter, error)

	// Open gets those of a card that there is.
	Open(dir string) (*sealed.Store, sealed.Counter, error)

	// Hardware says whether they outlive somebody who has the disk.
	Hardware() bool

	// String says for operators what is protected from whom.
	String() string
}

// FileProtection keeps both in files: no protection from who reads them, and none
// against rollback. keyPath is the key's file; "": in the store. One that exists
// is taken for a new card, unless it is in the store.
func FileProtection(keyPath string) Protection { return fileProtection(keyPath) }

type fileProtection string

func (p fileProtection) path(dir string) string {
	if p == "" {
		return filepath.Join(dir, keyName)
	}
	return string(p)
}

func (p fileProtection) Create(dir string) (*sealed.Store, sealed.Counter, error) {
	key := sealed.NewKey()
	defer key.Clear()
	src, err := sealed.CreateKeyFile(p.path(dir), key)
	if errors.Is(err, fs.ErrExist) && p != "" {
		src, err = sealed.OpenKeyFile(string(p)), nil
	}
	if err != nil {
		return nil, nil, err
	}
	keys, err := sealed.OpenStore(src)
	if err != nil {
		return nil, nil, err
	}
	counter, err := sealed.CreateFileCounter(filepath.Join(dir, counterName))
	if err != nil {
		keys.Close()
		return nil, nil, err
	}
	return keys, counter, nil
}

func (p fileProtection) Open(dir string) (*sealed.Store, sealed.Counter, error) {
	keys, err := sealed.OpenStore(sealed.OpenKeyFile(p.path(dir)))
	if err != nil {
		return nil, nil, err
	}
	return keys, sealed.OpenFileCounter(filepath.Join(dir, counterName)), nil
}

func (fileProtection) Hardware() bool { return false }

func (fileProtection) String() string {
	return "key file and file counter: no protection from who reads the key, no rollback protection"
}

// HostTPM is a protection by the host's TPM.
type HostTPM struct {
	TPM  hosttpm.TPM
	PCRs hosttpm.Selection // that a new card's key is sealed under

	// Index is the NV index of the counter. Zero: hosttpm.DefaultIndex. Two
	// cards of one host need two.
	Index hosttpm.Index

	// Backup is a file to which a new card's key is written in clear as well.
	// Without one a change of the PCRs loses the store. "": none. If the file
	// exists its key is used.
	Backup string
}

// TPMProtection keeps the key sealed by the host's TPM, and the counter in it.
func TPMProtection(cfg HostTPM) Protection {
	if cfg.Index == 0 {
		cfg.Index = hosttpm.DefaultIndex
	}
	return tpmProtection(cfg)
}

type tpmProtection HostTPM

func (p tpmProtection) Create(dir string) (*sealed.Store, sealed.Counter, error) {
	key, err := p.newKey()
	if err != nil {
		return nil, nil, err
	}
	defer key.Clear()
	src, err := hosttpm.SealKey(p.TPM, filepath.Join(dir, keyTPMName), key, p.PCRs)
	if err != nil {
		return nil, nil, err
	}
	return p.open(src, hosttpm.DefineCounter)
}

// newKey makes the key of a new card and its backup, or takes the backup's.
func (p tpmProtection) newKey() (*sealed.Key, error) {
	key := sealed.NewKey()
	if p.Backup == "" {
		return key, nil
	}
	_, err := sealed.CreateKeyFile(p.Backup, key)
	if err == nil {
		return key, nil
	}
	key.Clear()
	if errors.Is(err, fs.ErrExist) {
		return sealed.OpenKeyFile(p.Backup).Key()
	}
	return nil, err
}

func (p tpmProtection) Open(dir string) (*sealed.Store, sealed.Counter, error) {
	return p.open(hosttpm.OpenKey(p.TPM, filepath.Join(dir, keyTPMName)), hosttpm.OpenCounter)
}

// open gets the key, and the counter that the key authorizes.
func (p tpmProtection) open(src sealed.KeySource, get func(hosttpm.TPM, hosttpm.Index, *sealed.Key) (*hosttpm.Counter, error)) (*sealed.Store, sealed.Counter, error) {
	keys, err := sealed.OpenStore(src)
	if err != nil {
		return nil, nil, err
	}
	auth, err := keys.Secret(counterPurpose) // the counter keeps it
	if err == nil {
		var c *hosttpm.Counter
		if c, err = get(p.TPM, p.Index, auth); err == nil {
			return keys, c, nil
		}
	}
	keys.Close()
	return nil, nil, err
}

func (tpmProtection) Hardware() bool { return true }

func (tpmProtection) String() string {
	return "host TPM: key is unsealed only in the measured state it was sealed for, counter cannot be set back"
}
