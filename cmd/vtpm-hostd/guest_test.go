// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/client"
	"hwvtpm/coproc"
	driver "hwvtpm/coproc/coprocd"
	"hwvtpm/guest/attester"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/door/doorhttp"
	"hwvtpm/vtpm/hostdoor"
)

// guest is a machine that runs: its slot is open, and its PCR 0-7 are the host's.
type guest struct {
	*attester.Attester
	site *site
	name string
	door *door.Client
	slot coproc.Slot
}

// boot opens a slot as a machine's backend does, and starts its TPM.
func (s *site) boot(name string) *guest {
	s.t.Helper()
	dev, err := driver.Open(driver.Config{Socket: s.path("card.sock"), Key: func(name string) (ed25519.PrivateKey, error) {
		return bytes.Clone(s.keys[name]), nil
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { dev.Close() })
	g := &guest{site: s, name: name, door: s.guest(name)}
	if g.slot, err = dev.OpenSlot(s.t.Context(), name); err != nil {
		s.t.Fatal(err)
	}
	if g.slot, err = coproc.WithHostPCRs(g.slot, (&hostdoor.Client{Socket: s.path("backend.sock")}).PCRs, nil); err != nil {
		s.t.Fatal(err)
	}
	if _, err := g.slot.PowerOn(s.t.Context(), coproc.RunID{1}); err != nil {
		s.t.Fatal(err)
	}
	tpm := &slotTPM{slot: g.slot}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(tpm); err != nil {
		s.t.Fatal(err)
	}
	if g.Attester, err = attester.Open(tpm, s.path("guest-"+name)); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { g.Close() })
	return g
}

// slotTPM is a slot for go-tpm.
type slotTPM struct {
	mu   sync.Mutex // one command at a time
	slot coproc.Slot
}

// Send implements transport.TPM.
func (p *slotTPM) Send(cmd []byte) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	resp := make([]byte, coproc.MaxTransfer)
	n, err := p.slot.Execute(context.Background(), coproc.Command{Bytes: cmd}, resp)
	return resp[:n], err
}

// enrol has the host get the guest's key certified.
func (g *guest) enrol() {
	g.site.t.Helper()
	id, err := g.Enrol(g.site.t.Context(), attester.AtDoor(g.door), attester.EnrolOptions{Host: g.door})
	if err != nil {
		g.site.t.Fatal(err)
	}
	if id.VM != g.name {
		g.site.t.Errorf("the certificate is of %s, want %s", id.VM, g.name)
	}
}

// quote gives the machine's own part of evidence.
func (g *guest) quote(nonce []byte) *attest.Machine {
	g.site.t.Helper()
	m, err := g.Machine(g.site.t.Context(), nonce, attester.Selection{}, nil)
	if err != nil {
		g.site.t.Fatal(err)
	}
	return m
}

var nonce = bytes.Repeat([]byte{0x5a}, 32)

// evidence asks the host at a door for the rest.
func (g *guest) evidence(at attester.Door) (*attest.Evidence, error) {
	return attester.Complete(g.site.t.Context(), at, g.quote(nonce), nonce, "")
}

// holds gives evidence by the machine's own door, which has to hold.
func (g *guest) holds(when string) *attest.Evidence {
	g.site.t.Helper()
	ev, err := g.evidence(g.door)
	if err != nil {
		g.site.t.Fatalf("%s: %v", when, err)
	}
	if out, err := g.site.verify(ev); err != nil {
		g.site.t.Errorf("%s: %v\n%s", when, err, out)
	}
	return ev
}

// verify has vtpmctl judge evidence, with the authority's lists, and gives what it says.
func (s *site) verify(ev *attest.Evidence) (string, error) {
	s.t.Helper()
	text, err := ev.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("evidence.json", string(text))
	s.write("policy.json", `{"version":1,"modes":["map"],"revocation":true,"same-boot":true,"host":{"log":true},"hosts":["host-1"]}`)
	args := []string{"verify", "--evidence", s.path("evidence.json"), "--nonce", hex.EncodeToString(nonce),
		"--roots", s.path("control", "ca", "root.pem"), "--policy", s.path("policy.json")}
	for _, issuer := range []string{"root", "attestation"} {
		s.write(issuer+".crl", s.ctl("crl", issuer)+"\n")
		args = append(args, "--crl", s.path(issuer+".crl"))
	}
	out, err := exec.Command(built.Path(s.t, "vtpmctl"), args...).CombinedOutput()
	return string(out), err
}

// https is a guest's way to the host without a channel of its own.
func (s *site) https() attester.Door {
	s.t.Helper()
	address := ""
	until(s.t, "the HTTPS door", func() bool {
		_, rest, ok := strings.Cut(s.host.said(), "guests by HTTPS: address=")
		address, _, _ = strings.Cut(rest, "\n")
		return ok && address != ""
	})
	return newHTTPS(s.t, "https://"+address, s.path("tls.pem"))
}

// serverCertificate makes a certificate and key for the HTTPS door.
func (s *site) serverCertificate() {
	s.t.Helper()
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=host-1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", s.path("tls.key"), "-out", s.path("tls.pem")).CombinedOutput()
	if err != nil {
		s.t.Fatalf("openssl: %v: %s", err, out)
	}
	if err := os.Chmod(s.path("tls.key"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func newHTTPS(t testing.TB, base, roots string) attester.Door {
	t.Helper()
	pool, err := client.ReadRoots(roots)
	if err != nil {
		t.Fatal(err)
	}
	c, err := doorhttp.NewClient(base, &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
