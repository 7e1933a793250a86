// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"hwvtpm/guest/attester"
	"hwvtpm/vtpm/aik"
)

// shown is what show says, for programs. Members are only added, never renamed.
type shown struct {
	EK  *certified `json:"ek,omitempty"`  // missing if NV has no certificate
	AIK *certified `json:"aik,omitempty"` // missing if the machine is not enrolled
}

// certified is a key by its certificate.
type certified struct {
	Key         string    `json:"key"` // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	VM          string    `json:"vm"`
	Algorithm   string    `json:"algorithm"`
	Serial      string    `json:"serial"` // hexadecimal
	Issuer      string    `json:"issuer"`
	Begins      time.Time `json:"begins"`
	Ends        time.Time `json:"ends"`
	Due         bool      `json:"due,omitempty"` // of the AIK: half of its life is over
	Certificate string    `json:"certificate"`   // PEM
	Chain       []string  `json:"chain"`         // PEM, one for each issuer
}

func certifiedOf(vm string, cert *x509.Certificate, issuers [][]byte) *certified {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	c := &certified{
		Key: hex.EncodeToString(sum[:]), VM: vm, Algorithm: cert.PublicKeyAlgorithm.String(), Serial: cert.SerialNumber.Text(16),
		Issuer: cert.Issuer.String(), Begins: cert.NotBefore, Ends: cert.NotAfter, Certificate: pemText(cert.Raw), Chain: []string{},
	}
	for _, der := range issuers {
		c.Chain = append(c.Chain, pemText(der))
	}
	return c
}

func pemText(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// show makes no key where there is none: then it looks at the TPM with one that is
// forgotten.
func (inv *invocation) show(context.Context) error {
	dir := inv.dir
	if attester.Enrolled(dir) != nil {
		var err error
		if dir, err = os.MkdirTemp("", "vtpm-guest"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	return inv.use(dir, func(a *attester.Attester) error {
		var s shown
		ek, err := a.EK()
		if err == nil {
			s.EK = certifiedOf(ek.VM, ek.Certificate, ek.Chain)
		} else if !errors.Is(err, aik.ErrNoCertificate) {
			return err
		}
		id, err := a.Identity()
		if err == nil {
			var issuers [][]byte
			for _, c := range id.Chain {
				issuers = append(issuers, c.Raw)
			}
			s.AIK = certifiedOf(id.VM, id.Certificate, issuers)
			s.AIK.Due = id.Due(time.Now())
		} else if !errors.Is(err, attester.ErrNotEnrolled) {
			return err
		}
		return inv.print(&s)
	})
}

func (inv *invocation) print(s *shown) error {
	if inv.json {
		enc := json.NewEncoder(inv.con.out)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	w := tabwriter.NewWriter(inv.con.out, 0, 0, 2, ' ', 0)
	for _, k := range []struct {
		name, none string
		c          *certified
	}{
		{"endorsement key", "no certificate in NV", s.EK},
		{"attestation key", "not enrolled", s.AIK},
	} {
		if k.c == nil {
			fmt.Fprintf(w, "%s\t%s\n", k.name, k.none)
			continue
		}
		fmt.Fprintf(w, "%s\t%s %s\n", k.name, k.c.Algorithm, k.c.Key)
		fmt.Fprintf(w, "  machine\t%s\n  certificate\t%s\n  by\t%s\n  until\t%s\n", k.c.VM, k.c.Serial, k.c.Issuer, until(k.c))
	}
	return w.Flush()
}

// until says when a certificate ends: those without an end have one that X.509 can
// say (RFC 5280, 4.1.2.5).
func until(c *certified) string {
	switch {
	case c.Ends.Year() == 9999:
		return "no end"
	case c.Due:
		return c.Ends.Local().Format(time.DateTime) + ", renewal is due"
	}
	return c.Ends.Local().Format(time.DateTime)
}
