// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/internal/durable"
	"hwvtpm/vtpm/attest"
)

// link is a card that is reached. It is not changed.
type link struct {
	card   Card
	serial string // of the card, hexadecimal
	bond   *bond  // nil: the card is not certified

	why   error     // it is not certified by the host's present certificate
	again time.Time // when to try to; zero: when there is one
}

// bond is what ties the card to the host's TPM.
type bond struct {
	host  *identity         // that certified it
	cert  *x509.Certificate // the coprocessor AIK's
	quote attest.Quote      // by the host AIK, over the card's key
}

// chain is what is above an endorsement key: coprocessor AIK, host AIK, authority. The
// host's are those of today: the card's certificate is good below them, too, until it
// gets one of its own, since the host's key and name are the same.
func (b *bond) chain(id *identity) []*x509.Certificate {
	return append([]*x509.Certificate{b.cert}, id.chain()...)
}

func (m *Manager) current() (*identity, *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id, m.link
}

func (m *Manager) setLink(l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link = l
}

// keepCard connects to the card, again and again, until ctx ends.
func (m *Manager) keepCard(ctx context.Context) {
	pause := backoff{least: m.cfg.Retry, most: min(m.cfg.RetryMost, maxCardPause)}
	for ctx.Err() == nil {
		err := m.useCard(ctx, &pause)
		if ctx.Err() != nil {
			return
		}
		m.setProblem(problemCard, err)
		wait := pause.next()
		m.log.Warn("the card is not reached", "error", err, "again-in", wait.Round(time.Second))
		m.sleep(ctx, wait, nil)
	}
}

// maxCardPause: the card is a local program, which is asked often.
const maxCardPause = 10 * time.Second

// useCard works with the card until the connection is lost.
func (m *Manager) useCard(ctx context.Context, pause *backoff) error {
	card, err := m.cfg.Card(ctx)
	if err != nil {
		return err
	}
	defer card.Close()
	defer m.setLink(nil)
	for {
		if err := m.certifyCard(ctx, card); err != nil {
			return err
		}
		if err := m.refresh(ctx, card); err != nil {
			return err
		}
		pause.reset()
		m.sleep(ctx, m.cfg.Poll, m.renewed)
		if ctx.Err() != nil {
			return nil
		}
	}
}

// certifyCard sees to it that the card has a certificate by the host's present one,
// and the host a quote over its key. An error is a lost connection.
func (m *Manager) certifyCard(ctx context.Context, card Card) error {
	id, was := m.current()
	now := m.cfg.Now()
	if was != nil && (id == nil || was.bond != nil && was.bond.host == id || now.Before(was.again)) {
		return nil
	}
	key, err := card.CardKey(ctx)
	if err != nil {
		return fmt.Errorf("key of the card: %w", err)
	}
	l := &link{card: card, serial: hex.EncodeToString(key.Serial[:])}
	if m.bond != nil && sameKey(m.bond.cert, key.Public) == nil {
		l.bond = m.bond // until there is a better one
	}
	m.noteCard(l.serial)
	if id.good(now) {
		if l.why = m.certify(ctx, l, id, key); lost(l.why) {
			return l.why
		}
	}
	if l.why != nil {
		l.again = now.Add(bindAgain)
		m.log.Warn("the card is not certified", "card", l.serial, "error", l.why)
	}
	m.bond = l.bond
	m.setLink(l)
	m.setProblem(problemCard, l.why)
	m.export(l, id)
	return nil
}

// bindAgain is the pause after the card could not be certified.
const bindAgain = 15 * time.Second

// certify gives a card its certificates: those that it had, if they are by this identity,
// or new ones.
func (m *Manager) certify(ctx context.Context, l *link, id *identity, key admin.CardKey) (err error) {
	b := l.bond
	if b == nil || b.host != id {
		if b, err = m.bind(ctx, id, key); err != nil {
			return err
		}
	}
	if err := l.card.SetCertificates(ctx, raw(b.chain(id))); err != nil {
		return fmt.Errorf("certificates for the card: %w", err)
	}
	l.bond = b
	m.log.Info("the card is certified", "card", l.serial, "until", b.cert.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// bind has the host's TPM certify a card's key, and quote over it.
func (m *Manager) bind(ctx context.Context, id *identity, key admin.CardKey) (*bond, error) {
	now := m.cfg.Now()
	template, err := ca.CoprocessorAIK(hex.EncodeToString(key.Serial[:]), ca.Validity{Now: now, Life: id.aik.NotAfter.Sub(now)})
	if err != nil {
		return nil, err
	}
	issuer := &ca.Issuer{Certificate: id.aik, Signer: m.cfg.TPM.Signer()}
	b := &bond{host: id}
	if b.cert, err = issuer.Issue(template, key.Public); err != nil {
		return nil, fmt.Errorf("certificate of the card: %w", err)
	}
	data := attest.CardData(key.DER)
	reading, err := m.quoter.alone(ctx, forCard, data[:])
	if err != nil {
		return nil, fmt.Errorf("quote over the card's key: %w", err)
	}
	b.quote = attest.Quote{Attest: reading.Quote.Attest, Signature: reading.Quote.Signature}
	return b, nil
}

func raw(certs []*x509.Certificate) (der [][]byte) {
	for _, c := range certs {
		der = append(der, c.Raw)
	}
	return der
}

// fileCard has the serial of the card that this host had last.
const fileCard = "card"

// noteCard writes down which card the host has, and is loud if it is another one than
// before: a card that lost its store has new keys, and so have all machines.
func (m *Manager) noteCard(serial string) {
	path := filepath.Join(m.cfg.Dir, fileCard)
	text, err := readFile(path)
	before := strings.TrimSpace(string(text))
	if err == nil && before == serial {
		return
	}
	if before != "" {
		m.log.Error("THE CARD HAS ANOTHER KEY than before: it was replaced, or lost its store. It gets a new certificate, "+
			"and what the old key signed binds no machine any more", "before", before, "now", serial)
	}
	if err = errors.Join(err, durable.Replace(path, []byte(serial+"\n"), 0o600)); err != nil {
		m.log.Error("which card the host has cannot be noted", "error", err)
	}
}

// lost says whether an error is of the connection to the card, and not the card's own
// answer or another's.
func lost(err error) bool {
	e, ok := errors.AsType[*coproc.Error](err)
	return ok && e.Status == abi.StatusOK
}

// cardContext is for commands that a caller waits for: one that goes away must not
// cut the connection that all share, which the end of its context would do.
func cardContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cardTimeout)
}

const cardTimeout = 30 * time.Second
