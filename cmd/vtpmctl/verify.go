// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/attest"
)

// verification is the command line of verify and policy learn.
type verification struct {
	evidence string // file, or - for stdin
	nonce    string // hexadecimal
	roots    fileList
	lists    fileList
	policy   string // file
	at       string // RFC 3339
}

// fileList is a flag that may be given several times.
type fileList []string

func (l *fileList) String() string { return strings.Join(*l, " ") }

func (l *fileList) Set(path string) error {
	*l = append(*l, path)
	return nil
}

func (v *verification) define(fs *flag.FlagSet) {
	fs.StringVar(&v.evidence, "evidence", "", "")
	fs.StringVar(&v.nonce, "nonce", "", "")
	fs.Var(&v.roots, "roots", "")
	fs.Var(&v.lists, "crl", "")
	fs.StringVar(&v.policy, "policy", "", "")
	fs.StringVar(&v.at, "at", "", "")
}

var verifyFlags = []string{"evidence", "nonce", "roots", "crl", "policy", "at"}

// maxCertificates is the size of the largest file of roots or lists, in bytes.
const maxCertificates = 16 << 20

// readLimited reads a file whole, or stdin for "-".
func (inv *invocation) readLimited(path string, limit int64) ([]byte, error) {
	in := inv.con.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}

// question is what evidence is to be judged, by what.
type question struct {
	evidence *attest.Evidence
	nonce    []byte
	verifier *attest.Verifier
}

func (inv *invocation) question() (*question, error) {
	v := &inv.verify
	if v.evidence == "" || v.nonce == "" || len(v.roots) == 0 {
		return nil, cli.Usagef("%s needs --evidence, --nonce and --roots (see --help)", inv.cmd.words)
	}
	q := &question{verifier: &attest.Verifier{Roots: x509.NewCertPool(), Now: time.Now()}}
	var err error
	if q.nonce, err = hex.DecodeString(v.nonce); err == nil {
		err = attest.CheckNonce(q.nonce)
	}
	if err != nil {
		return nil, cli.Usagef("--nonce: %w", err)
	}
	if v.at != "" {
		if q.verifier.Now, err = time.Parse(time.RFC3339, v.at); err != nil {
			return nil, cli.Usagef("--at: %w", err)
		}
	}
	return q, inv.readQuestion(q)
}

func (inv *invocation) readQuestion(q *question) error {
	v := &inv.verify
	for _, path := range v.roots {
		text, err := inv.readLimited(path, maxCertificates)
		if err != nil {
			return err
		}
		certs, err := ca.ParsePEM(text)
		if err != nil || len(certs) == 0 {
			return errors.Join(fmt.Errorf("%s has no certificates in PEM", path), err)
		}
		for _, c := range certs {
			q.verifier.Roots.AddCert(c)
		}
	}
	for _, path := range v.lists {
		text, err := inv.readLimited(path, maxCertificates)
		if err != nil {
			return err
		}
		lists, err := parseLists(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		q.verifier.Lists = append(q.verifier.Lists, lists...)
	}
	if v.policy != "" {
		text, err := inv.readLimited(v.policy, attest.MaxPolicy)
		if err != nil {
			return err
		}
		if q.verifier.Policy, err = attest.ParsePolicy(text); err != nil {
			return fmt.Errorf("%s: %w", v.policy, err)
		}
	}
	text, err := inv.readLimited(v.evidence, attest.MaxEvidence)
	if err != nil {
		return err
	}
	q.evidence, err = attest.Parse(text)
	return err
}

// parseLists reads one revocation list in DER, or any number in PEM.
func parseLists(text []byte) ([]*x509.RevocationList, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		list, err := x509.ParseRevocationList(text)
		return []*x509.RevocationList{list}, err
	}
	var lists []*x509.RevocationList
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("a %s among revocation lists", block.Type)
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, nil
}

var errNotHeld = errors.New("the evidence does not hold")

// verifyEvidence judges evidence, and fails if not all that is required held.
func (inv *invocation) verifyEvidence(context.Context) error {
	q, err := inv.question()
	if err != nil {
		return err
	}
	r, err := q.verifier.Verify(q.evidence, q.nonce)
	if err != nil {
		return err
	}
	return inv.printResult(r)
}

// printResult prints a judgement, one line for each claim.
func (inv *invocation) printResult(r *attest.Result) error {
	err := inv.printClaims(r)
	if err == nil && !r.OK {
		err = errNotHeld
	}
	return err
}

func (inv *invocation) printClaims(r *attest.Result) error {
	if inv.json {
		return inv.printJSON(r)
	}
	w := tabwriter.NewWriter(inv.con.out, 0, 0, 2, ' ', 0)
	for _, c := range r.Claims {
		state := string(c.State)
		if c.Required && c.State == attest.NotClaimed {
			state = "missing"
		}
		// Reasons have words of evidence in them, which must not reach a terminal as
		// anything but letters.
		fmt.Fprintf(w, "%s\t%s\t%s\n", state, c.Name, printable(c.Reason))
	}
	return w.Flush()
}

// printable replaces what moves a cursor, ends a line or is no text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}

// policyLearn makes a policy of what evidence shows that holds.
func (inv *invocation) policyLearn(context.Context) error {
	q, err := inv.question()
	if err != nil {
		return err
	}
	out, err := newFile(inv.out)
	if err != nil {
		return err
	}
	defer out.drop()
	p, r, err := q.verifier.Learn(q.evidence, q.nonce)
	if errors.Is(err, attest.ErrNotHeld) {
		return inv.printResult(r)
	} else if err != nil {
		return err
	}
	text, err := p.Marshal()
	if err != nil {
		return err
	}
	if inv.out == "" {
		_, err = inv.con.out.Write(text)
		return err
	}
	return out.keep(text)
}
