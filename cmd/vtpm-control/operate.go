// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"hwvtpm/control/api"
	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/operator"
	"hwvtpm/control/store"
	"hwvtpm/internal/cli"
)

func (inv *invocation) printJSON(v any) error {
	enc := json.NewEncoder(inv.con.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (inv *invocation) token(ctx context.Context) error {
	t, err := tell[operator.Token](ctx, inv, "/v1/token", operator.TokenRequest{
		Kind: inv.args[0], Name: inv.args[1], Life: inv.life, Reuse: inv.reuse})
	if err != nil {
		return err
	}
	if inv.json {
		return inv.printJSON(t)
	}
	_, err = fmt.Fprintln(inv.con.out, t.Token)
	return err
}

func (inv *invocation) allow(ctx context.Context) error {
	_, err := inv.ask(ctx, "/v1/allow", store.Allow{Kind: inv.args[0], Name: inv.args[1], EK: inv.args[2]})
	return err
}

func (inv *invocation) pin(ctx context.Context) error {
	_, err := inv.ask(ctx, "/v1/pin", store.Pin{Host: inv.args[0], Key: inv.args[1]})
	return err
}

func (inv *invocation) deny(ctx context.Context) error {
	_, err := inv.ask(ctx, "/v1/deny", store.Deny{Key: inv.args[0], Reason: inv.reason})
	return err
}

var reasons = map[string]ca.Reason{
	"unspecified": ca.ReasonUnspecified, "key-compromise": ca.ReasonKeyCompromise,
	"superseded": ca.ReasonSuperseded, "cessation": ca.ReasonCessation,
}

func (inv *invocation) revoke(ctx context.Context) error {
	reason, ok := reasons[inv.why]
	if !ok {
		return cli.Usagef("no reason is called %q", inv.why)
	}
	r := operator.RevokeRequest{Kind: inv.args[0], Name: inv.args[1], Reason: reason}
	if inv.args[0] == "serial" {
		r = operator.RevokeRequest{Serial: strings.ToLower(inv.args[1]), Reason: reason}
	}
	revoked, err := tell[api.Revoked](ctx, inv, "/v1/revoke", r)
	if err != nil {
		return err
	}
	if inv.json {
		return inv.printJSON(revoked)
	}
	for _, serial := range revoked.Serials {
		fmt.Fprintln(inv.con.out, serial)
	}
	return nil
}

func (inv *invocation) crl(ctx context.Context) error {
	text, err := inv.ask(ctx, "/v1/crl/"+inv.args[0]+"?pem", nil)
	if err != nil {
		return err
	}
	_, err = inv.con.out.Write(text)
	return err
}

func (inv *invocation) keyHash(context.Context) error {
	text, err := os.ReadFile(inv.args[0])
	if err != nil {
		return err
	}
	var certs []*x509.Certificate
	if bytes.Contains(text, []byte("-----BEGIN")) {
		certs, err = ca.ParsePEM(text)
	} else {
		certs, err = x509.ParseCertificates(text)
	}
	if err == nil && len(certs) == 0 {
		err = errors.New("no certificate")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", inv.args[0], err)
	}
	_, err = fmt.Fprintln(inv.con.out, enrol.KeyHash(certs[0].RawSubjectPublicKeyInfo))
	return err
}

// audit verifies the chain of lines. That none was cut off, every opening checks.
func (inv *invocation) audit(context.Context) error {
	f, err := os.Open(home{inv.dir}.path("audit.log"))
	if err != nil {
		return err
	}
	defer f.Close()
	head, err := audit.Verify(f, audit.Head{})
	if err != nil {
		return err
	}
	if inv.json {
		return inv.printJSON(head)
	}
	_, err = fmt.Fprintf(inv.con.out, "%d lines, the last one %s\n", head.Seq, head.Hash)
	return err
}

func (inv *invocation) list(ctx context.Context) error {
	r, err := tell[operator.Records](ctx, inv, "/v1/records", nil)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(inv.con.out, 0, 0, 2, ' ', 0)
	var chosen any
	switch inv.args[0] {
	case "hosts":
		chosen = r.Hosts
		table(w, "NAME\tSERIAL\tRENEWED\tEK", r.Hosts, func(h store.Host) []any { return []any{h.Name, h.Serial, local(h.Renewed), h.EK} })
	case "vms":
		chosen = r.VMs
		table(w, "ID\tHOST\tSERIAL\tRENEWED\tEK", r.VMs, func(v store.VM) []any { return []any{v.ID, v.Host, v.Serial, local(v.Renewed), v.EK} })
	case "certificates":
		chosen = r.Certificates
		table(w, "SERIAL\tPROFILE\tSUBJECT\tUNTIL\tSTATE", r.Certificates, func(c store.Certificate) []any {
			return []any{c.Serial, c.Profile, c.Subject, local(c.NotAfter), state(c)}
		})
	case "tokens":
		chosen = r.Tokens
		table(w, "KIND\tNAME\tUNTIL\tREUSE\tHASH", r.Tokens, func(t store.Token) []any { return []any{t.Kind, t.Name, local(t.Expires), t.Reuse, t.Hash[:16]} })
	case "policy":
		chosen = struct {
			Allowed []store.Allow `json:"allowed"`
			Denied  []store.Deny  `json:"denied"`
			Pins    []store.Pin   `json:"pins"`
		}{r.Allowed, r.Denied, r.Pins}
		printPolicy(w, &r)
	default:
		return cli.Usagef("list takes hosts, vms, certificates, tokens or policy, not %q", inv.args[0])
	}
	if inv.json {
		return inv.printJSON(chosen)
	}
	return w.Flush()
}

func printPolicy(w io.Writer, r *operator.Records) {
	table(w, "RULE\tKIND\tNAME\tKEY", r.Allowed, func(a store.Allow) []any { return []any{"allow", a.Kind, a.Name, a.EK} })
	table(w, "", r.Pins, func(p store.Pin) []any { return []any{"pin", store.KindHost, p.Host, p.Key} })
	table(w, "", r.Denied, func(d store.Deny) []any { return []any{"deny", "-", "-", d.Key} })
}

// table writes a head, unless it is empty, and a row for each record.
func table[T any](w io.Writer, head string, records []T, row func(T) []any) {
	if head != "" {
		fmt.Fprintln(w, head)
	}
	for _, r := range records {
		columns := row(r)
		fmt.Fprintf(w, strings.TrimSuffix(strings.Repeat("%v\t", len(columns)), "\t")+"\n", columns...)
	}
}

func local(t time.Time) string { return t.Local().Format(time.DateTime) }

func state(c store.Certificate) string {
	switch {
	case c.Revoked != nil:
		return "revoked"
	case time.Now().After(c.NotAfter):
		return "ended"
	}
	return "good"
}
