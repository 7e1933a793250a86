// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/control/api"
	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/operator"
	"hwvtpm/control/revoke"
	"hwvtpm/control/store"
	"hwvtpm/control/store/bolt"
	"hwvtpm/internal/cli"
)

// A home is the folder of an authority:
//
//	ca/             root.pem, attestation.pem, service.pem
//	keys/           root.key (may be kept elsewhere), attestation.key, service.key
//	pkcs11.json     instead of keys/: where the token is that has them
//	manufacturers/  certificates of makers of TPMs, put there by the operator
//	store.db, audit.log
//	operator.sock   while a server runs
type home struct{ dir string }

func (h home) path(name string) string { return filepath.Join(h.dir, name) }
func (h home) socket() string          { return h.path("operator.sock") }

// make makes a home beside its place and puts it there whole.
func (h home) make(ctx context.Context, name string, token *tokenConfig) error {
	if entries, err := os.ReadDir(h.dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty", h.dir)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(h.dir), ".vtpm-control")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	made := home{tmp}
	for _, dir := range []string{"ca", "keys", "manufacturers"} {
		if err := os.Mkdir(made.path(dir), 0o700); err != nil {
			return err
		}
	}
	if token != nil {
		if err := made.writeTokenConfig(*token); err != nil {
			return err
		}
	}
	if err := made.create(name); err != nil {
		return err
	}
	o, err := made.open(ctx)
	if err != nil {
		return err
	}
	err = o.journal.Record(ctx, audit.Event{Event: "init", Actor: "operator", Name: name})
	for _, issuer := range []string{ca.NameRoot, ca.NameAttestation, ca.NameService} {
		_, err2 := o.lists.Current(ctx, issuer, time.Now())
		err = errors.Join(err, err2)
	}
	if err := errors.Join(err, o.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, h.dir) // over nothing, or an empty folder
}

// create makes keys and certificates.
func (h home) create(name string) error {
	keys, close, err := h.openKeys()
	if err != nil {
		return err
	}
	_, err = ca.Create(h.path("ca"), name, keys, time.Now())
	return errors.Join(err, close())
}

// opened is a home in use. One process has it at a time.
type opened struct {
	home
	authority *ca.Authority
	store     store.Store
	journal   *audit.Journal
	lists     *revoke.Publisher
	closeKeys func() error
}

// Lives of revocation lists, from one to the time by which the next one is due.
const (
	listLife     = 24 * time.Hour
	rootListLife = 365 * 24 * time.Hour
)

func (h home) open(ctx context.Context) (_ *opened, err error) {
	keys, closeKeys, err := h.openKeys()
	if err != nil {
		return nil, err
	}
	o := &opened{home: h, closeKeys: closeKeys}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	authority, err := ca.Load(h.path("ca"), keys, time.Now())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w\nIs there an authority in %s? 'vtpm-control init' makes one", err, h.dir)
	} else if err != nil {
		return nil, err
	}
	o.authority = authority
	db, err := bolt.Open(h.path("store.db"))
	if err != nil {
		return nil, err
	}
	o.store = db
	if err := store.Migrate(ctx, o.store); err != nil {
		return nil, err
	}
	if o.journal, err = audit.OpenJournal(ctx, h.path("audit.log"), o.store, time.Now); err != nil {
		return nil, err
	}
	o.lists = &revoke.Publisher{Authority: authority, Store: o.store, Life: listLife, RootLife: rootListLife}
	return o, nil
}

// Close closes what is open: the journal, then the store, then the keys.
func (o *opened) Close() error {
	var errs []error
	if o.journal != nil {
		errs = append(errs, o.journal.Close())
	}
	if o.store != nil {
		errs = append(errs, o.store.Close())
	}
	return errors.Join(append(errs, o.closeKeys())...)
}

// server makes the server of the home; lives and limits are the invocation's.
func (o *opened) server(inv *invocation, log hclog.Logger) (*api.Server, error) {
	makers, err := enrol.LoadManufacturers(o.path("manufacturers"))
	if err != nil {
		return nil, err
	}
	if makers.Count() == 0 {
		log.Warn("no manufacturer is trusted: no host can enrol", "folder", o.path("manufacturers"))
	}
	if inv.url != "" {
		o.authority.Attestation.CRL = inv.url + "/v1/crl/" + ca.NameAttestation
		o.authority.Service.CRL = inv.url + "/v1/crl/" + ca.NameService
	}
	cfg := enrol.DefaultConfig()
	cfg.Authority, cfg.Store, cfg.Journal, cfg.Manufacturers = o.authority, o.store, o.journal, makers
	cfg.HostLife, cfg.VTPMLife = inv.hostLife, inv.vtpmLife
	return api.New(api.Config{
		Authority: o.authority, Store: o.store, Enrol: enrol.New(cfg), Lists: o.lists, Now: time.Now, Logger: log,
		Operator: &operator.Operator{Store: o.store, Journal: o.journal, Now: time.Now},
		Burst:    inv.burst, Rate: inv.rate, Verify: inv.verify,
	}), nil
}

func (inv *invocation) init(ctx context.Context) error {
	if !ca.ValidName(inv.args[0]) {
		return cli.Usagef("%w", ca.ErrName)
	}
	h, token := home{inv.dir}, (*tokenConfig)(nil)
	if inv.pkcs11 != (tokenConfig{}) {
		if inv.pkcs11.Module == "" || inv.pkcs11.Token == "" || inv.pkcs11.PINFile == "" {
			return cli.Usagef("--pkcs11, --pkcs11-token and --pkcs11-pin belong together")
		}
		token = &inv.pkcs11
	}
	if err := h.make(ctx, inv.args[0], token); err != nil {
		return err
	}
	fmt.Fprintf(inv.con.err, "Made an authority in %s. Put makers' certificates into %s, and keep %s elsewhere, offline: it is needed once in half a year, by 'vtpm-control crl root'.\n",
		h.dir, h.path("manufacturers"), filepath.Join(h.dir, "keys", "root.key"))
	return nil
}
