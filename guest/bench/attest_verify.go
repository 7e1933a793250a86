// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"time"

	goattest "github.com/google/go-attestation/attest"
	"golang.org/x/sys/unix"

	"hwvtpm/vtpm/attest"
)

// judge is one kind of check. batch of them follow each prepare, which is not
// measured; i counts all.
type judge struct {
	what    string
	goal    bool
	batch   int
	prepare func() error
	check   func(i int) error

	wall series
	cpu  time.Duration
}

// measureVerify has all judges work in turns.
func measureVerify(ctx context.Context, f *fleet, plan Plan) ([]VerifyRow, error) {
	judges, err := f.judges()
	if err != nil {
		return nil, err
	}
	for range plan.Rounds {
		for _, j := range judges {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err := j.round(plan.AttestChecks); err != nil {
				return nil, fmt.Errorf("%s: %w", j.what, err)
			}
		}
	}
	return verifyRows(judges), nil
}

// round does about n checks.
func (j *judge) round(n int) error {
	var samples []time.Duration
	for len(samples) < n {
		if err := j.prepare(); err != nil {
			return err
		}
		before := processTime()
		for range j.batch {
			begin := time.Now()
			if err := j.check(len(samples)); err != nil {
				return err
			}
			samples = append(samples, time.Since(begin))
		}
		j.cpu += processTime() - before
	}
	j.wall.add(samples)
	return nil
}

// processTime is what this process has had of the processors.
func processTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot be: getrusage(2) has no such errors
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// verifyRows holds all against the last judge.
func verifyRows(judges []*judge) []VerifyRow {
	var rows []VerifyRow
	for _, j := range judges {
		r := VerifyRow{What: j.what, Goal: j.goal, Wall: j.wall.dist()}
		r.CPU = j.cpu / time.Duration(max(1, r.Wall.Samples))
		r.Rate = ratio(time.Second, r.CPU)
		rows = append(rows, r)
	}
	for i := range rows {
		rows[i].Ratio = ratio(rows[i].CPU, rows[len(rows)-1].CPU)
	}
	return rows
}

// judges are ours, from text to verdict, and go-attestation's of the host's layer.
func (f *fleet) judges() ([]*judge, error) {
	nothing := func() error { return nil }
	machines, answers := len(f.answers), len(f.nonces)
	if machines < 2 || answers < 2 {
		return nil, fmt.Errorf("bench: %d machines with %d answers are too few", machines, answers)
	}
	var one *attest.Cache // of the host's first machine
	all := attest.NewCache()
	for i := range machines {
		if err := f.verify(all, i, 0); err != nil {
			return nil, err
		}
	}
	ours := []*judge{
		{what: "nothing known", goal: true, batch: machines, prepare: nothing,
			check: func(i int) error { return f.verify(nil, i%machines, i/machines%answers) }},
		{what: "new machine on a known host", goal: true, batch: machines - 1,
			prepare: func() error { one = attest.NewCache(); return f.verify(one, 0, 0) },
			check:   func(i int) error { return f.verify(one, 1+i%(machines-1), i/(machines-1)%answers) }},
		{what: "known machine, new nonce", goal: true, batch: machines, prepare: nothing,
			check: func(i int) error { return f.verify(all, i%machines, 1+i/machines%(answers-1)) }},
	}
	l, err := f.hostLayer()
	if err != nil {
		return nil, err
	}
	return append(ours,
		&judge{what: "go-attestation: one quote and its values", batch: machines, prepare: nothing,
			check: func(int) error { return l.verify(false) }},
		&judge{what: "go-attestation: one quote, its values, the log", batch: machines, prepare: nothing,
			check: func(int) error { return l.verify(true) }}), nil
}

// verify judges an answer, which must hold, with revocation lists and a policy.
func (f *fleet) verify(c *attest.Cache, machine, answer int) error {
	v := attest.Verifier{Roots: f.roots, Lists: f.lists, Now: f.now, Cache: c, Policy: &attest.Policy{
		Version: attest.Version, Revocation: true, Host: attest.LayerPolicy{Log: true, SecureBoot: true},
	}}
	ev, err := attest.Parse(f.answers[machine][answer])
	if err != nil {
		return err
	}
	r, err := v.Verify(ev, f.nonces[answer])
	if err == nil && !r.OK {
		err = fmt.Errorf("the evidence does not hold: %v", r.Unmet())
	}
	return err
}

// layer is the host's in one piece of evidence, as go-attestation has it.
type layer struct {
	key   goattest.AKPublic
	quote goattest.Quote
	nonce []byte
	pcrs  []goattest.PCR
	log   []byte
}

func (f *fleet) hostLayer() (*layer, error) {
	ev, err := attest.Parse(f.answers[0][0])
	if err != nil {
		return nil, err
	}
	key, err := hostKey(ev.Binding.Chain)
	if err != nil {
		return nil, err
	}
	nonce := attest.HostNonce(f.nonces[0], ev.VM.Quote.Attest)
	l := &layer{
		key:   goattest.AKPublic{Public: key, Hash: crypto.SHA256},
		quote: goattest.Quote{Quote: ev.Host.Quote.Attest, Signature: ev.Host.Quote.Signature},
		nonce: nonce[:], log: ev.Host.Log,
	}
	for text, value := range ev.Host.PCRs["sha256"] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		l.pcrs = append(l.pcrs, goattest.PCR{Index: n, Digest: value, DigestAlg: crypto.SHA256})
	}
	return l, nil
}

// hostKey is the third of a binding's chain: EK, card, host.
func hostKey(chain string) (crypto.PublicKey, error) {
	rest := []byte(chain)
	var block *pem.Block
	for range 3 {
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("bench: the binding's chain is too short")
		}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return cert.PublicKey, nil
}

func (l *layer) verify(log bool) error {
	if err := l.key.Verify(l.quote, l.pcrs, l.nonce); err != nil || !log {
		return err
	}
	el, err := goattest.ParseEventLog(l.log)
	if err != nil {
		return err
	}
	_, err = el.Verify(l.pcrs)
	return err
}
