// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"hwvtpm/control/ca"
	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/ekcert/ekcerttest"
	"hwvtpm/coproc/coproctest/tpmtest"
)

const ekHandle = 0x8101000a // of the key that create makes

// certify gives the daemon's card certificates.
func (d *daemon) certify(a *ekcerttest.Authority) {
	d.t.Helper()
	c := d.admin()
	key, err := c.CardKey(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := c.SetCertificates(d.t.Context(), a.Certify(d.t, key.DER, nil)); err != nil {
		d.t.Fatal(err)
	}
}

// content reads an NV index; nil if there is none.
func (c client) content(t *testing.T, index uint32) []byte {
	t.Helper()
	b, err := tpmtest.ReadIndex(c.TPM, index)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// verified checks what a guest finds in NV by the authority's own checks.
func verified(t *testing.T, a *ekcerttest.Authority, c client, vm string) *x509.Certificate {
	t.Helper()
	ek, err := x509.ParseCertificate(c.content(t, abi.IndexP256EK))
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := x509.ParseCertificates(c.content(t, abi.IndexEKChain))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Root)
	chain, err := ca.Verify(ek, issuers, roots, time.Now())
	if err != nil || len(chain) != 5 {
		t.Fatalf("chain of %d, %v", len(chain), err)
	}
	if got, err := ca.IsVTPMEK(ek); got != vm || err != nil {
		t.Errorf("it is for %q, %v", got, err)
	}
	if _, err := ca.IsCoprocessorAIK(chain[1]); err != nil {
		t.Error(err)
	}
	if host, err := ca.IsHostAIK(chain[2]); host != "host-1" || err != nil {
		t.Errorf("the host is %q, %v", host, err)
	}
	return ek
}

// TestCertificates: from the card's certificates to the guest's NV memory, at the
// creation of one slot and later for another, over a restart of the daemon.
func TestCertificates(t *testing.T) {
	d := newDaemon(t).start()
	d.create("before")
	a := ekcerttest.New(t)
	d.certify(a)
	d.end(unix.SIGTERM)
	d.start()
	d.create("after")
	c, ctx := d.admin(), t.Context()
	info, err := c.Show(ctx, "before")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.EKCertificate(ctx, info, ekHandle); err != nil || len(got.Public) == 0 || len(got.DER) != 0 {
		t.Errorf("before: %+v, %v", got, err)
	}
	if err := c.Certify(ctx, info); err != nil {
		t.Fatal(err)
	}
	dev := d.device()
	for _, name := range []string{"before", "after"} {
		info, err := c.Show(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		guest := d.open(dev, name)
		guest.Startup()
		told, err := c.EKCertificate(ctx, info, ekHandle)
		if err != nil || !bytes.Equal(told.DER, verified(t, a, guest, name).Raw) {
			t.Errorf("%s: the card tells of %d bytes, %v", name, len(told.DER), err)
		}
		if err := c.Certify(ctx, info); !errors.Is(err, coproc.ErrInUse) {
			t.Errorf("%s is open: Certify = %v, want ErrInUse", name, err)
		}
	}
}

// TestKilledWhileCertifying: the daemon is killed while it makes slots and certifies
// one. That one keeps its contents and has a certificate, and what was made is whole.
func TestKilledWhileCertifying(t *testing.T) {
	const kills = 4
	d := newDaemon(t).start()
	a := ekcerttest.New(t)
	d.certify(a)
	d.create("a")
	guest := d.open(d.device(), "a")
	guest.Startup()
	guest.DefineNV(tpmtest.NVBase, 4)
	guest.WriteNV(tpmtest.NVBase, []byte("keep"))
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(guest.TPM); err != nil {
		t.Fatal(err)
	}
	guest.slot.Close()
	certified := 0
	for range kills {
		certified += d.certifyUntilKilled(t, 300*time.Millisecond)
		d.start()
	}
	if certified == 0 {
		t.Error("nothing was certified before a kill")
	}
	list, err := d.admin().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d times certified, %d slots", certified, len(list))
	dev := d.device()
	for _, info := range list {
		s, err := dev.OpenSlot(t.Context(), info.Name)
		if err != nil {
			t.Fatalf("%s: %v", info.Name, err)
		}
		s.Close()
		if got, err := d.admin().EKCertificate(t.Context(), info, ekHandle); err != nil || len(got.DER) == 0 {
			t.Errorf("%s: %+v, %v", info.Name, got, err)
		}
	}
	guest = d.openAs(dev, "a", coproc.RunID{2})
	guest.Startup()
	verified(t, a, guest, "a")
	if got := guest.ReadNV(tpmtest.NVBase, 4); string(got) != "keep" {
		t.Errorf("the guest's index has %q", got)
	}
}

// certifyUntilKilled certifies slot "a", and makes slots, until the daemon is
// killed. It gives how often the first was done.
func (d *daemon) certifyUntilKilled(t *testing.T, after time.Duration) (certified int) {
	ctx := t.Context()
	creating, certifying := d.admin(), d.admin()
	info, err := certifying.Show(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	prefix := time.Now().Format("150405.000000")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			name := prefix + "-" + string(rune('a'+i%26))
			key, err := d.key(name) // nobody else asks for one meanwhile
			if err != nil {
				return
			}
			req := abi.SlotCreate{Keys: abi.KeyP256EK, Banks: abi.DefaultBanks, Name: name, AccessKey: [32]byte(key[32:])}
			if _, err := creating.Create(context.WithoutCancel(ctx), req); err != nil {
				return
			}
		}
	}()
	timer := time.AfterFunc(after, func() { d.cmd.Process.Kill() })
	defer timer.Stop()
	for certifying.Certify(ctx, info) == nil {
		certified++
	}
	<-done
	d.wait()
	return certified
}
