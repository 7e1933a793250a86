// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Keys is where an authority's private keys are. Names are those of its
// certificates: "root", "attestation", "service". A key that isn't there is
// fs.ErrNotExist, one that can't be made because it is there fs.ErrExist.
type Keys interface {
	Create(name string) (crypto.Signer, error)
	Open(name string) (crypto.Signer, error)
}

// FileKeys keeps keys as PKCS#8 files, NAME.key, in a folder: readable by their
// owner only, or they are refused. Whoever reads the file has the key.
type FileKeys struct {
	Dir string
}

var _ Keys = FileKeys{}

const pemPrivateKey = "PRIVATE KEY"

// Create makes an ECDSA P-256 key.
func (k FileKeys) Create(name string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: make key %s: %w", name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("ca: encode key %s: %w", name, err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der})
	defer clear(text)
	if err := writeNew(k.path(name), text, 0o600); err != nil {
		return nil, fmt.Errorf("ca: key %s: %w", name, err)
	}
	return key, nil
}

func (k FileKeys) path(name string) string { return filepath.Join(k.Dir, name+".key") }

// maxFile is more than any key or certificate needs.
const maxFile = 64 << 10

// Open reads a key.
func (k FileKeys) Open(name string) (crypto.Signer, error) {
	f, err := os.Open(k.path(name))
	if err != nil {
		return nil, fmt.Errorf("ca: key %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("ca: key %s: %w", name, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("ca: key %s: others may read or write it (mode %04o): make it 0600, and consider it known", name, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("ca: key %s: %w", name, err)
	}
	defer clear(text)
	signer, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("ca: key %s: %w", name, err)
	}
	return signer, nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemPrivateKey {
		return nil, errors.New("not a PKCS#8 private key in PEM")
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T does not sign", key)
	}
	return signer, nil
}

// writeNew makes a file that must not exist, on the disk before it returns.
func writeNew(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
