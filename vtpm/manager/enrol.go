// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// keepIdentity enrols the host, and renews its certificates with the same keys when
// half of their life is over, until ctx ends.
func (m *Manager) keepIdentity(ctx context.Context) {
	pause := backoff{least: m.cfg.Retry, most: m.cfg.RetryMost}
	for ctx.Err() == nil {
		id := m.identity()
		if wait := m.due(id); wait > 0 {
			m.lookForRevocation(ctx, id)
			m.writeDown()
			m.sleep(ctx, min(wait, longest), m.doubted)
			continue
		}
		next, err := m.enrolHost(ctx, id.good(m.cfg.Now()))
		if err == nil {
			pause.reset()
			m.unkept = next
			m.writeDown()
			m.setIdentity(next)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		wait := pause.next()
		m.setProblem(problemIdentity, err)
		m.log.Warn("the authority has not certified this host", "error", err, "again-in", wait.Round(time.Second), "until", id.ends())
		m.sleep(ctx, wait, nil)
	}
}

// writeDown keeps what the authority has certified. If that fails, as on a disk that is
// full, the host works with it all the same, rather than ask the authority for more of
// it, and without an end.
func (m *Manager) writeDown() {
	if m.unkept == nil {
		return
	}
	err := m.keep(m.unkept)
	if err == nil {
		m.unkept = nil
	} else {
		err = fmt.Errorf("the host's certificates cannot be kept, and are lost when the daemon ends: %w", err)
		m.log.Warn("state", "error", err)
	}
	m.setProblem(problemIdentity, err)
}

// longest is the longest sleep: the clock of the host may be set meanwhile.
const longest = time.Minute

// due tells how long there is nothing to do about the identity.
func (m *Manager) due(id *identity) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == nil || m.revoked {
		return 0
	}
	return id.renewal().Sub(m.cfg.Now())
}

// revoke notes that the authority has taken the host's certificate back. The host goes
// on as it was, since it is for verifiers to judge, and tries to enrol again.
func (m *Manager) revoke(why error) {
	m.mu.Lock()
	news := !m.revoked
	m.revoked = true
	m.problems[problemIdentity] = why
	m.mu.Unlock()
	if news {
		select {
		case m.doubted <- struct{}{}:
		default: // it will be seen
		}
		m.log.Error("THE AUTHORITY HAS REVOKED THIS HOST: nobody should believe what it vouches for", "error", why)
	}
}

// lookForRevocation looks into the authority's list now and then.
func (m *Manager) lookForRevocation(ctx context.Context, id *identity) {
	now := m.cfg.Now()
	if now.Before(m.looked.Add(lookEvery)) {
		return
	}
	m.looked = now
	list, err := m.authority.CRL(ctx)
	if err == nil {
		err = list.CheckSignatureFrom(id.above[0])
	}
	if err != nil {
		m.log.Debug("the authority's revocation list is not to be had", "error", err)
		return
	}
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(id.aik.SerialNumber) == 0 {
			m.revoke(fmt.Errorf("%w, on %s", ErrRevoked, e.RevocationTime.UTC().Format(time.RFC3339)))
		}
	}
}

// lookEvery is how often the revocation list is looked into.
const lookEvery = 10 * time.Minute

// ends tells until when the host can go on without the authority.
func (id *identity) ends() string {
	if id == nil {
		return "no certificate"
	}
	return id.aik.NotAfter.UTC().Format(time.RFC3339)
}

// enrolHost has the authority certify the host's keys. For a renewal the records of
// the authority are enough; a token, which may be good once, is then shown only if
// they are not. No token is shown twice.
func (m *Manager) enrolHost(ctx context.Context, renews bool) (*identity, error) {
	token, err := m.cfg.Token()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	tries := []string{token, ""}
	if renews {
		tries = []string{"", token}
	}
	if token == "" || token == m.spent {
		tries = []string{""}
	}
	var refusals error
	for _, t := range tries {
		id, err := m.enrolWith(ctx, Credentials{Token: t})
		if t != "" && (err == nil || errors.Is(err, ErrRefused)) {
			m.spent = t
		}
		if err == nil || !errors.Is(err, ErrRefused) {
			return id, err
		}
		refusals = errors.Join(refusals, err)
	}
	return nil, refusals
}

func (m *Manager) enrolWith(ctx context.Context, who Credentials) (*identity, error) {
	csr, err := m.certificateRequest()
	if err != nil {
		return nil, err
	}
	r := &Enrolment{Kind: KindHost, Name: m.cfg.Name, AKPublic: m.cfg.TPM.AKPublic(), CSR: csr, Credentials: who}
	if r.EKCertificate, r.EKChain, err = m.cfg.TPM.EKCertificate(); err != nil {
		return nil, fmt.Errorf("EK certificate of the host's TPM: %w", err)
	}
	c, err := m.authority.Enrol(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	secret, err := m.cfg.TPM.Activate(c.Blob, c.Secret)
	if err != nil {
		return nil, fmt.Errorf("the host's TPM does not meet the challenge: %w", err)
	}
	got, err := m.authority.Prove(ctx, &Proof{ID: c.ID, Secret: secret, Credentials: who})
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	id, err := m.judge(got.Certificate, got.TLS, got.Chain)
	if err != nil {
		return nil, fmt.Errorf("the authority gave what cannot be used: %w", err)
	}
	return id, nil
}

// backoff gives the pauses between tries, each twice as long as the one before.
type backoff struct {
	least, most time.Duration
	last        time.Duration
}

func (b *backoff) reset() { b.last = 0 }

// next gives half to all of the pause: hosts that lost the authority together should
// not come back together.
func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.least), b.most)
	return b.last/2 + rand.N(b.last/2+1)
}
