// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/sealed/hosttpm"
)

// hostTPM is libtpms in this process.
type hostTPM struct{ e *engine.Engine }

func (h hostTPM) Send(cmd []byte) ([]byte, error) {
	rsp := make([]byte, engine.MaxResponse)
	n, _, err := h.e.Process(0, bytes.Clone(cmd), rsp)
	return rsp[:n], err
}

func newHostTPM(t *testing.T) hostTPM {
	t.Helper()
	e, err := engine.New()
	must(t, err)
	t.Cleanup(e.Stop)
	must(t, e.Manufacture())
	h := hostTPM{e}
	_, err = tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(h)
	must(t, err)
	return h
}

// A card by a host TPM: its store opens only in the measured state that it was
// made in, and cannot be set back, not even as a whole.
func TestHostTPM(t *testing.T) {
	h := newHostTPM(t)
	backup := filepath.Join(t.TempDir(), "backup")
	cfg := newConfig(t)
	cfg.Protection = TPMProtection(HostTPM{
		TPM: hosttpm.TPM{Transport: h}, PCRs: hosttpm.Selection{Bank: tpm2.TPMAlgSHA256, PCRs: []uint{7}}, Backup: backup,
	})
	if !cfg.Protection.Hardware() || strings.Contains(cfg.Protection.String(), "no rollback") {
		t.Errorf("protection %q", cfg.Protection)
	}
	s := openStore(t, cfg)
	a := create(t, s, 1)
	must(t, s.Close())
	old := copyTree(t, cfg.Dir)
	s = openStore(t, cfg)
	save(t, s, a.ID, 2)
	must(t, s.Close())
	now := copyTree(t, cfg.Dir)

	restore(t, old, cfg.Dir) // with everything that a disk has
	if _, err := Open(cfg); !errors.Is(err, sealed.ErrRollback) {
		t.Errorf("the store of before opens: %v", err)
	}
	restore(t, now, cfg.Dir)
	s = openStore(t, cfg)
	must(t, check(s, a.ID))
	must(t, s.Close())

	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: 7, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(h)
	must(t, err)
	if _, err := Open(cfg); !errors.Is(err, hosttpm.ErrPCRs) {
		t.Errorf("in another measured state: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, keyName)); err == nil {
		t.Error("the key is in the store in clear")
	}
	if _, err := sealed.OpenKeyFile(backup).Key(); err != nil {
		t.Errorf("backup: %v", err)
	}
}
