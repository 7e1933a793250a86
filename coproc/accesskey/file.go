// SPDX-License-Identifier: Apache-2.0

package accesskey

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/durable"
)

// maxFile is more than any key file has, in bytes.
const maxFile = 4096

// Create makes a new key and writes it to a new file at path, mode 0600, which
// is durable when Create returns. An error that is os.ErrExist: something is
// there already, and was left alone.
func Create(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make access key: %w", err)
	}
	text := Marshal(key)
	defer clear(text)
	if err := durable.Create(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("write access key: %w", err)
	}
	return key, nil
}

// Load reads a private key from a file. A symbolic link, and a file that others
// than its owner may access in any way, is ErrUnsafe. A file of root's and its
// group's that both may only read is let pass: systemd's credentials are so.
func Load(path string) (ed25519.PrivateKey, error) {
	text, err := read(path, unix.O_NOFOLLOW, true)
	if err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}
	defer clear(text)
	key, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("access key %s: %w", path, err)
	}
	return key, nil
}

// LoadPublic reads a public key, or the public half of a private one, from a
// file of any mode.
func LoadPublic(path string) (ed25519.PublicKey, error) {
	text, err := read(path, 0, false)
	if err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}
	defer clear(text)
	key, err := ParsePublic(text)
	if err != nil {
		return nil, fmt.Errorf("access key %s: %w", path, err)
	}
	return key, nil
}

// credential says whether the file is one that systemd hands to a service of
// another user (systemd.exec(5), LoadCredential=): it is root's alone, and where an
// access control list lets the service read it, the list's mask shows as the bits
// of root's group.
func credential(info os.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && owner.Uid == 0 && owner.Gid == 0 && info.Mode().Perm() == 0o440
}

// read reads a small file. O_NONBLOCK is for a named pipe, which would wait for
// a writer, and is refused afterwards.
func read(path string, flags int, private bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: %w", path, ErrUnsafe)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file: %w", path, ErrFormat)
	case private && info.Mode().Perm()&0o077 != 0 && !credential(info):
		return nil, fmt.Errorf("%s has mode %04o, and may have 0600 at most: %w", path, info.Mode().Perm(), ErrUnsafe)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes: %w", path, info.Size(), ErrFormat)
	}
	text := make([]byte, maxFile)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return text[:n], nil
}
