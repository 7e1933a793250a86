// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
)

// newTPM says what TPM to make.
type newTPM struct {
	vmID  string // as swtpm_setup's --vmid, may be empty
	keys  abi.Keys
	banks abi.Banks
	certs bool // certificates of the keys were asked for
}

// createTPM makes the TPM of the state directory dir, which has none.
func createTPM(ctx context.Context, s settings, dir string, n newTPM, log hclog.Logger) (place, error) {
	if s.socket != "" {
		return createSlot(ctx, s, dir, n, log)
	}
	if !s.chosen {
		log.Warn("no coprocd is configured, and there is none at "+defaultSocket+": the state directory gets a simulated card of its own", "dir", dir)
	}
	if n.certs {
		log.Warn("the endorsement keys have no certificates: a simulated card in a state directory has no authority")
	}
	return createCard(ctx, s, dir, n, log)
}

// createSlot makes a slot of coprocd's card. The key is durable before the slot
// is made, and the place after it: a slot that is cut short is one that
// 'vtpmctl slot list' shows, and no key is ever lost.
func createSlot(ctx context.Context, s settings, dir string, n newTPM, log hclog.Logger) (place, error) {
	key, err := newKey(dir)
	if err != nil {
		return place{}, err
	}
	var info abi.SlotInfo
	err = withCard(ctx, s.socket, func(c *admin.Client) error {
		req := abi.SlotCreate{Keys: n.keys, Banks: n.banks, AccessKey: [32]byte(key)}
		info, err = createNamed(ctx, c, req, slotName(n.vmID, dir), log)
		if err == nil && n.certs {
			missCertificates(ctx, c, info, log)
		}
		return err
	})
	if err != nil {
		return place{}, errors.Join(fmt.Errorf("making a slot: %w", err), dropKey(dir, err))
	}
	log.Info("made a TPM", "slot", info.Name, "keys", n.keys.String(), "banks", n.banks.String())
	p := place{Slot: info.Name, ID: hex.EncodeToString(info.ID[:])}
	return p, writePlace(dir, p)
}

// missCertificates says so if the card has issued none for the keys of a new slot.
func missCertificates(ctx context.Context, c *admin.Client, info abi.SlotInfo, log hclog.Logger) {
	for _, handle := range info.Keys.EKHandles() {
		ek, err := c.EKCertificate(ctx, info, handle)
		if err == nil && len(ek.DER) != 0 {
			continue
		}
		log.Warn("the endorsement keys have no certificates, since the card has none itself: run vtpm-hostd, and certify the slot then",
			"command", "vtpmctl slot certify "+info.Name, "error", err)
		return
	}
}

// newKey makes the access key of dir's slot. A key that a creation which was cut
// short has left is taken again.
func newKey(dir string) (ed25519.PublicKey, error) {
	path := filepath.Join(dir, keyFile)
	key, err := accesskey.Create(path)
	if errors.Is(err, fs.ErrExist) {
		return accesskey.LoadPublic(path)
	}
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return key.Public().(ed25519.PublicKey), nil
}

// dropKey removes the key of a slot that was not made for certain.
func dropKey(dir string, cause error) error {
	if e, ok := errors.AsType[*coproc.Error](cause); ok && e.Status != abi.StatusOK {
		return os.Remove(filepath.Join(dir, keyFile))
	}
	return nil
}

// maxNames bounds the search for a name that is free.
const maxNames = 100

// createNamed makes a slot of the name, or name-2 and so on if that is taken: a
// slot whose state directory was removed is not overwritten, since a backup of
// that directory may come back.
func createNamed(ctx context.Context, c *admin.Client, req abi.SlotCreate, name string, log hclog.Logger) (abi.SlotInfo, error) {
	req.Name = name
	for i := 2; ; i++ {
		info, err := c.Create(ctx, req)
		if !errors.Is(err, coproc.ErrExists) || i > maxNames {
			return info, err
		}
		log.Warn("there is a slot of this name already, left by a state directory that was removed?", "slot", req.Name)
		req.Name = fmt.Sprintf("%s-%d", name, i)
	}
}

var uuid = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)

// slotName names the slot after the virtual machine's UUID, of --vmid or, as
// libvirt lays its directories out, of the state directory; else after the
// directory's path.
func slotName(vmID, dir string) string {
	for _, text := range []string{vmID, dir} {
		if found := uuid.FindAllString(text, -1); found != nil {
			return strings.ToLower(found[len(found)-1])
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	sum := sha256.Sum256([]byte(abs))
	return "swtpm-" + hex.EncodeToString(sum[:8])
}

// createCard makes a simulated card in dir, and the keys in its TPM. It is made
// under another name, so that what is cut short is no TPM.
func createCard(ctx context.Context, s settings, dir string, n newTPM, log hclog.Logger) (place, error) {
	draft, err := os.MkdirTemp(dir, cardDir+".*")
	if err != nil {
		return place{}, err
	}
	defer os.RemoveAll(draft)
	if err := furnish(ctx, s, draft, n, log); err != nil {
		return place{}, fmt.Errorf("making a TPM: %w", err)
	}
	if err := os.Rename(filepath.Join(draft, cardDir), filepath.Join(dir, cardDir)); err != nil {
		return place{}, err
	}
	log.Info("made a TPM", "dir", dir, "keys", n.keys.String(), "banks", n.banks.String())
	return place{}, errors.Join(syncDir(dir), writePlace(dir, place{}))
}

func furnish(ctx context.Context, s settings, dir string, n newTPM, log hclog.Logger) error {
	t, err := openFree(ctx, s, dir, place{}, log)
	if err != nil {
		return err
	}
	return errors.Join(provision(ctx, t.slot, n), t.Close())
}
