// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
	"hwvtpm/internal/cli"
)

func (inv *invocation) create(ctx context.Context) error {
	name := inv.args[0]
	return inv.make(ctx, name, func(ctx context.Context, c *admin.Client, req abi.SlotCreate) (abi.SlotInfo, error) {
		return c.Create(ctx, req)
	})
}

func (inv *invocation) clone(ctx context.Context) error {
	if !inv.newID {
		return cli.Usagef("a copy with the same endorsement keys would be a second TPM of one identity: give --new-identity")
	}
	source, name := inv.args[0], inv.args[1]
	if !abi.ValidName(source) {
		return fmt.Errorf("no slot can be called %q: %w", source, coproc.ErrNotFound)
	}
	return inv.make(ctx, name, func(ctx context.Context, c *admin.Client, req abi.SlotCreate) (abi.SlotInfo, error) {
		info, err := c.Show(ctx, source)
		if err != nil {
			return abi.SlotInfo{}, err
		}
		return c.Clone(ctx, info.Number, req)
	})
}

// make makes a slot with its access key.
func (inv *invocation) make(ctx context.Context, name string,
	do func(context.Context, *admin.Client, abi.SlotCreate) (abi.SlotInfo, error)) error {
	if !abi.ValidName(name) {
		return cli.Usagef("%q is no name for a slot: a letter or digit, then letters, digits, and any of . _ -", name)
	}
	return inv.withClient(ctx, func(ctx context.Context, c *admin.Client) error {
		pub, file, err := inv.slotKey(name)
		if err != nil {
			return err
		}
		req := abi.SlotCreate{Keys: inv.keys, Banks: inv.banks, Name: name, AccessKey: [32]byte(pub)}
		done := inv.con.progress("making slot " + name)
		info, err := do(ctx, c, req)
		done()
		if err != nil {
			return errors.Join(err, dropKey(file, err))
		}
		if file != "" {
			fmt.Fprintf(inv.con.err, "the slot's access key is in %s: keep it, there is no other way to open the slot\n", file)
		}
		return inv.printSlot(info)
	})
}

// slotKey gives the access key of a slot to be made. With a file: it is new.
func (inv *invocation) slotKey(name string) (pub ed25519.PublicKey, file string, err error) {
	if inv.accessKey != "" {
		pub, err = accesskey.LoadPublic(inv.accessKey)
		return pub, "", err
	}
	if file, err = inv.keyFile(name); err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, "", err
	}
	key, err := accesskey.Create(file)
	if errors.Is(err, os.ErrExist) {
		return nil, "", fmt.Errorf("%w: use it with --access-key %s, or move it away", err, file)
	}
	if err != nil {
		return nil, "", err
	}
	return key.Public().(ed25519.PublicKey), file, nil
}

// dropKey removes the new key of a slot that was not made. If the card has said
// nothing, the slot may be there all the same, and wants its key.
func dropKey(file string, cause error) error {
	if file == "" {
		return nil
	}
	if e, ok := errors.AsType[*coproc.Error](cause); ok && e.Status != abi.StatusOK {
		return os.Remove(file)
	}
	return fmt.Errorf("the slot may have been made nevertheless: its access key was left in %s", file)
}

// keyFile is where the access key of a slot is kept.
func (inv *invocation) keyFile(name string) (string, error) {
	dir := inv.keyDir
	if dir == "" {
		dir = inv.con.getenv("HWVTPM_KEYS")
	}
	if dir == "" && os.Geteuid() == 0 {
		dir = "/var/lib/hwvtpm/keys"
	}
	if dir == "" {
		config, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("no place for access keys, give --key-dir: %w", err)
		}
		dir = filepath.Join(config, "hwvtpm", "keys")
	}
	return filepath.Join(dir, name+".key"), nil
}

// progress shows somebody who waits that there is work going on, until the
// function that it gives is called.
func (con *console) progress(what string) (done func()) {
	if !con.showable {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		begin := time.Now()
		shown := false
		for {
			select {
			case <-stop:
				if shown {
					fmt.Fprint(con.err, "\r\x1b[K")
				}
				return
			case <-time.After(time.Second):
				shown = true
				fmt.Fprintf(con.err, "\r%s, %d s ...", what, int(time.Since(begin).Seconds()))
			}
		}
	}()
	return func() { close(stop); <-stopped }
}
