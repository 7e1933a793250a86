// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"

	"hwvtpm/coproc/metrics"
	"hwvtpm/internal/shares"
)

// WriteMetrics writes what docs/operations.md lists. It may be called from any goroutine,
// and asks neither TPM, card nor authority.
func (m *Manager) WriteMetrics(w *metrics.Writer) {
	m.writeState(w)
	m.authority.asked.write(w.Counter("hostd_authority_questions_total", "Questions to the authority, for the host and for its machines."))
	m.quoter.asked.write(w.Counter("hostd_quotes_total", "Questions for PCRs of the host, by what they are for and what came of it."))
	m.quoter.took.write(w.Latencies("hostd_quote_duration_seconds", "From a question to the quote of the host's TPM that was made for it, with the wait for others."))
	m.asked.write(w.Counter("hostd_operations_total", "Operations that were asked for at the doors."))
	over := w.Counter("hostd_over_share_total", "Refusals because a machine has had its share.")
	for _, s := range []struct {
		of string
		l  *shares.Shares
	}{{"boot-evidence", m.boots.shares}, {"enrolments", m.enrols}, {"quotes", m.quotes}, {"requests", m.requests}} {
		over.Count(s.l.Refused(), metrics.Label{Name: "of", Value: s.of})
	}
}

// writeState writes how things are now.
func (m *Manager) writeState(w *metrics.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writeCertificatesLocked(w)
	w.Gauge("hostd_revoked", "1 if the authority has taken the host's certificate back.").Count(one(m.revoked))
	w.Gauge("hostd_card_connected", "1 if the card is reached.").Count(one(m.link != nil))
	complete := uint64(0)
	for _, s := range m.slots {
		complete += one(s.complete)
	}
	machines := w.Gauge("hostd_machines", "Slots of the card, by whether all of their endorsement keys have certificates.")
	machines.Count(complete, metrics.Label{Name: "certificates", Value: "complete"})
	machines.Count(uint64(len(m.slots))-complete, metrics.Label{Name: "certificates", Value: "missing"})
	problems := w.Gauge("hostd_problem", "1 for what is not as it has to be; vtpmctl host says why.")
	for kind, name := range problemNames {
		problems.Count(one(m.problems[kind] != nil), metrics.Label{Name: "of", Value: name})
	}
}

var problemNames = [problemKinds]string{
	problemIdentity: "identity", problemCard: "card", problemSlots: "slots", problemPCRs: "pcrs", problemFiles: "files",
}

// writeCertificatesLocked writes when certificates begin and end, in seconds since 1970;
// 0 for one that there is not, so that a rule about the end sees it.
func (m *Manager) writeCertificatesLocked(w *metrics.Writer) {
	var aik, tls, card *x509.Certificate
	if m.id != nil {
		aik, tls = m.id.aik, m.id.tls.Leaf
	}
	if m.link != nil && m.link.bond != nil {
		card = m.link.bond.cert
	}
	of := func(f metrics.Family, value func(*x509.Certificate) int64) {
		for _, c := range []struct {
			name string
			cert *x509.Certificate
		}{{"host-aik", aik}, {"host-tls", tls}, {"card-aik", card}} {
			v := int64(0)
			if c.cert != nil {
				v = value(c.cert)
			}
			f.Sample(float64(v), metrics.Label{Name: "of", Value: c.name})
		}
	}
	of(w.Gauge("hostd_certificate_not_before_timestamp_seconds", "When a certificate was issued, which is when it was renewed last."),
		func(c *x509.Certificate) int64 { return c.NotBefore.Unix() })
	of(w.Gauge("hostd_certificate_not_after_timestamp_seconds", "When a certificate ends."),
		func(c *x509.Certificate) int64 { return c.NotAfter.Unix() })
}

func one(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// counted is an authority whose answers are counted.
type counted struct {
	Authority
	asked *tally
}

func newCounted(a Authority) *counted {
	c := &counted{a, newTally("question", "result")}
	for _, question := range []string{"enrol", "prove", "revocations"} {
		for _, result := range []string{"success", "refused", "busy", "revoked", "failed", "left"} {
			c.asked.show(key{question, result})
		}
	}
	return c
}

// Enrol implements Authority.
func (c *counted) Enrol(ctx context.Context, r *Enrolment) (*Challenge, error) {
	got, err := c.Authority.Enrol(ctx, r)
	c.count(ctx, "enrol", err)
	return got, err
}

// Prove implements Authority.
func (c *counted) Prove(ctx context.Context, p *Proof) (*Certified, error) {
	got, err := c.Authority.Prove(ctx, p)
	c.count(ctx, "prove", err)
	return got, err
}

// CRL implements Authority.
func (c *counted) CRL(ctx context.Context) (*x509.RevocationList, error) {
	got, err := c.Authority.CRL(ctx)
	c.count(ctx, "revocations", err)
	return got, err
}

func (c *counted) count(ctx context.Context, question string, err error) {
	result := "success"
	switch {
	case err == nil:
	case ctx.Err() != nil:
		result = "left" // who asked has gone
	case errors.Is(err, ErrRevoked):
		result = "revoked"
	case errors.Is(err, ErrBusy):
		result = "busy"
	case errors.Is(err, ErrRefused):
		result = "refused"
	default:
		result = "failed" // it is not reached, as a rule
	}
	c.asked.add(key{question, result})
}
