// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"hwvtpm/guest/attester"
	"hwvtpm/vtpm/attest"
)

// fleet is evidence as text, with what is needed to judge it.
type fleet struct {
	nonces  [][]byte // one a round
	answers [][][]byte
	roots   *x509.CertPool
	lists   []*x509.RevocationList
	now     time.Time
}

// selection is what machines quote: one bank, as go-attestation does by its Quote.
var selection = attester.Selection{Banks: []string{"sha256"}}

// evidenceSeries collects what one kind of work takes.
type evidenceSeries struct {
	samples []time.Duration // of the round
	all     series
}

func (s *evidenceSeries) time(f func() error) error {
	begin := time.Now()
	err := f()
	s.samples = append(s.samples, time.Since(begin))
	return err
}

func (s *evidenceSeries) round() {
	s.all.add(s.samples)
	s.samples = nil
}

// evidenceBench measures one round after the other.
type evidenceBench struct {
	cloud *cloud
	swtpm *peer
	slots []*peer
	fleet *fleet

	quote, theirQuote, platform, whole, hostTPM, without evidenceSeries

	quoteCommands, theirCommands, hostCommands int
}

// measureEvidence has each machine answer one nonce a round, and keeps the answers.
func measureEvidence(ctx context.Context, c *cloud) (*fleet, EvidenceRow, error) {
	b := &evidenceBench{cloud: c, fleet: &fleet{answers: make([][][]byte, len(c.machines))}}
	defer b.close()
	if err := b.open(); err != nil {
		return nil, EvidenceRow{}, err
	}
	for range c.plan.AttestRounds {
		nonce := make([]byte, 32)
		rand.Read(nonce)
		b.fleet.nonces = append(b.fleet.nonces, nonce)
		for i := range c.machines {
			if err := b.once(ctx, i, nonce); err != nil {
				return nil, EvidenceRow{}, err
			}
		}
		for _, s := range []*evidenceSeries{&b.quote, &b.theirQuote, &b.platform, &b.whole, &b.hostTPM, &b.without} {
			s.round()
		}
	}
	err := b.fleet.trust(ctx, c.control)
	return b.fleet, b.row(), err
}

// open has go-attestation make the keys that it quotes with.
func (b *evidenceBench) open() (err error) {
	if b.swtpm, err = openPeer(b.cloud.peer); err != nil {
		return err
	}
	if _, _, err = b.swtpm.enrol(); err != nil {
		return err
	}
	for _, m := range b.cloud.machines {
		p, err := openPeer(m.slot)
		if err != nil {
			return err
		}
		b.slots = append(b.slots, p)
		if _, _, err := p.enrol(); err != nil {
			return err
		}
	}
	return nil
}

func (b *evidenceBench) close() {
	for _, p := range append(b.slots, b.swtpm) {
		if p != nil {
			_ = p.close()
		}
	}
}

// once measures all kinds of work with one machine.
func (b *evidenceBench) once(ctx context.Context, i int, nonce []byte) error {
	m, their := b.cloud.machines[i], b.slots[i]
	ours, theirs := m.tpm.commands(), their.bus.count
	err := errors.Join(
		b.quote.time(func() error { _, err := m.attester.Machine(ctx, nonce, selection, nil); return err }),
		b.theirQuote.time(func() error { return their.quote(nonce) }),
		b.platform.time(func() error { return b.swtpm.platform(nonce, hostLog) }))
	if err != nil {
		return err
	}
	b.quoteCommands += m.tpm.commands() - ours
	b.theirCommands += their.bus.count - theirs
	return b.answer(ctx, i, nonce)
}

// answer measures whole evidence, and keeps it.
func (b *evidenceBench) answer(ctx context.Context, i int, nonce []byte) error {
	m := b.cloud.machines[i]
	used, count := b.cloud.meter.total()
	var ev *attest.Evidence
	err := b.whole.time(func() error {
		part, err := m.attester.Machine(ctx, nonce, selection, nil)
		if err == nil {
			ev, err = attester.Complete(ctx, m.door, part, nonce, attest.ModeMap)
		}
		return err
	})
	if err != nil {
		return err
	}
	after, n := b.cloud.meter.total()
	whole := b.whole.samples[len(b.whole.samples)-1]
	b.hostTPM.samples = append(b.hostTPM.samples, after-used)
	b.without.samples = append(b.without.samples, whole-(after-used))
	b.hostCommands += n - count
	text, err := ev.Marshal()
	b.fleet.answers[i] = append(b.fleet.answers[i], text)
	return err
}

func (b *evidenceBench) row() EvidenceRow {
	r := EvidenceRow{
		Quote: b.quote.all.dist(), TheirQuote: b.theirQuote.all.dist(), Platform: b.platform.all.dist(),
		Whole: b.whole.all.dist(), HostTPM: b.hostTPM.all.dist(), Without: b.without.all.dist(),
	}
	for _, c := range []struct {
		mean *float64
		sum  int
	}{{&r.QuoteCommands, b.quoteCommands}, {&r.TheirCommands, b.theirCommands}, {&r.HostCommands, b.hostCommands}} {
		*c.mean = float64(c.sum) / float64(max(1, r.Whole.Samples))
	}
	r.QuoteRatio, r.WholeRatio = ratio(r.Quote.P50, r.TheirQuote.P50), ratio(r.Whole.P50, r.Platform.P50)
	return r
}

// trust has the fleet judged by the authority's root and its lists of now.
func (f *fleet) trust(ctx context.Context, s *controlServer) (err error) {
	text, err := os.ReadFile(s.root())
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	f.roots = x509.NewCertPool()
	if !f.roots.AppendCertsFromPEM(text) {
		return errors.New("bench: the authority has no root")
	}
	f.lists, err = s.lists(ctx)
	f.now = time.Now()
	return err
}
