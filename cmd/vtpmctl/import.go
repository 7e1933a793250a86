// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/swtpmstate"
	"hwvtpm/internal/cli"
)

// Names in the directory of a swtpm.
const (
	swtpmState = "tpm2-00.permall"
	swtpmLock  = ".lock"
)

// importSwtpm takes over the TPM of a swtpm. Nothing of the source is changed.
func (inv *invocation) importSwtpm(ctx context.Context) error {
	if inv.state == "" {
		return cli.Usagef("say by --state DIR where swtpm keeps the TPM")
	}
	if inv.key != "" && inv.pwdfile != "" {
		return cli.Usagef("give --key or --pwdfile, not both")
	}
	state, err := inv.readSwtpm()
	if err != nil {
		return err
	}
	defer clear(state)
	err = inv.make(ctx, inv.args[0], func(ctx context.Context, c *admin.Client, req abi.SlotCreate) (abi.SlotInfo, error) {
		return c.Import(ctx, req, state)
	})
	if err == nil {
		fmt.Fprintf(inv.con.err, `The TPM is in the slot now, and still in %s as well.
Never start swtpm on it again: there must not be two TPMs of one identity, and what
one of them writes the other does not know. When the machine works with the slot,
destroy %s and every backup of it.
`, inv.state, filepath.Join(inv.state, swtpmState))
	}
	return err
}

// readSwtpm reads the permanent state, which is secret.
func (inv *invocation) readSwtpm() ([]byte, error) {
	if err := unused(inv.state); err != nil {
		return nil, err
	}
	path := filepath.Join(inv.state, swtpmState)
	file, err := readState(path)
	if err != nil {
		return nil, err
	}
	defer clear(file)
	size, err := swtpmstate.KeySize(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, err := inv.swtpmKey(size)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	state, err := swtpmstate.Parse(file, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return state, nil
}

func readState(path string) ([]byte, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMost(f, swtpmstate.MaxSize)
}

// openPlain opens a file of swtpm's directory. That is swtpm's user's, who may have put
// there what leads elsewhere, or what root would wait for.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: name the directory that has the file itself", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// unused refuses a directory that a running swtpm has locked.
func unused(dir string) error {
	f, err := openPlain(filepath.Join(dir, swtpmLock))
	if errors.Is(err, os.ErrNotExist) {
		return nil // an old swtpm made none
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if lock.Type != unix.F_UNLCK {
		return fmt.Errorf("a swtpm, process %d, is using %s: shut the virtual machine down first", lock.Pid, dir)
	}
	return nil
}

// swtpmKey gives the key that the options name; nil: none.
func (inv *invocation) swtpmKey(size int) ([]byte, error) {
	switch {
	case inv.key != "":
		return readKey(inv.key)
	case inv.pwdfile != "" && size == 0:
		return nil, errors.New("a passphrase is given, but the state is not encrypted")
	case inv.pwdfile != "":
		return readPassword(inv.pwdfile, size)
	}
	return nil, nil
}

func readKey(arg string) ([]byte, error) {
	path, opts, err := options(arg, map[string][]string{"format": {"hex", "binary"}, "mode": {"aes-cbc", "aes-128-cbc", "aes-256-cbc"}})
	if err != nil {
		return nil, err
	}
	text, err := readSome(path, 2+64+2)
	if err != nil {
		return nil, err
	}
	parse := swtpmstate.ParseHexKey
	if opts["format"] == "binary" {
		parse = swtpmstate.ParseBinaryKey
	}
	key, err := parse(text)
	if err == nil && opts["mode"] != "" && (opts["mode"] == "aes-256-cbc") != (len(key) == 32) {
		err = fmt.Errorf("it has %d bits, which is not for %s", 8*len(key), opts["mode"])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func readPassword(arg string, size int) ([]byte, error) {
	path, opts, err := options(arg, map[string][]string{"kdf": {"pbkdf2", "sha512"}, "mode": {"aes-cbc", "aes-128-cbc", "aes-256-cbc"}})
	if err != nil {
		return nil, err
	}
	password, err := readSome(path, 1<<16)
	if err != nil {
		return nil, err
	}
	defer clear(password)
	if opts["kdf"] == "sha512" {
		return swtpmstate.HashedKey(password, size), nil
	}
	return swtpmstate.PasswordKey(password, size)
}

// options splits FILE,name=value,... and checks the values.
func options(arg string, known map[string][]string) (path string, opts map[string]string, err error) {
	path, rest, _ := strings.Cut(arg, ",")
	opts = map[string]string{}
	for rest != "" {
		var o string
		o, rest, _ = strings.Cut(rest, ",")
		name, value, _ := strings.Cut(o, "=")
		if !slices.Contains(known[name], value) {
			return "", nil, cli.Usagef("%q is no option of a key (see --help)", o)
		}
		opts[name] = value
	}
	return path, opts, nil
}

// readSome reads a file, or a pipe, of at most so many bytes.
func readSome(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMost(f, most)
}

func readMost(f *os.File, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		clear(b)
		err = fmt.Errorf("%s has more than %d bytes", f.Name(), most)
	}
	return b, err
}
