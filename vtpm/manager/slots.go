// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// slot is what is known of a machine's slot. It is replaced, not changed.
type slot struct {
	info      abi.SlotInfo
	statement []byte // the card's, of the endorsement keys
	eks       []ek
	bond      *bond // by which the certificates were judged

	complete bool // there is a certificate by this card for each key
	why      error
	again    time.Time // when to look again, if it is not complete
}

// ek is an endorsement key of a slot.
type ek struct {
	handle uint32
	public []byte            // TPMT_PUBLIC
	cert   *x509.Certificate // nil: none that this card has issued
}

// certifyAgain is how long a slot is left alone after its certification failed.
const certifyAgain = 30 * time.Second

// refresh looks which slots there are, and loads or certifies those that need it. An
// error is a lost connection.
func (m *Manager) refresh(ctx context.Context, card Card) error {
	infos, err := card.List(ctx)
	if err != nil {
		return fmt.Errorf("list of slots: %w", err)
	}
	m.tell(infos)
	_, l := m.current()
	old := m.known()
	next := make(map[string]*slot, len(infos))
	var problem error
	for i := range infos {
		s, err := m.update(ctx, l, old[infos[i].Name], infos[i])
		if err != nil {
			return err
		}
		next[infos[i].Name] = s
		if !s.complete && problem == nil {
			problem = fmt.Errorf("slot %s: %w", infos[i].Name, s.why)
		}
	}
	m.setProblem(problemSlots, problem)
	m.setSlots(l, next)
	return nil
}

func (m *Manager) known() map[string]*slot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slots
}

// setSlots takes the slots that there are now.
func (m *Manager) setSlots(l *link, next map[string]*slot) {
	m.mu.Lock()
	m.slots = next
	for name := range m.aiks {
		if next[name] == nil {
			delete(m.aiks, name)
		}
	}
	m.mu.Unlock()
	m.exportSlots(l, next)
}

// tell tells who wants to know which slots there are, before they are certified: that
// may take a while.
func (m *Manager) tell(infos []abi.SlotInfo) {
	names := make([]string, 0, len(infos))
	for i := range infos {
		names = append(names, infos[i].Name)
	}
	slices.Sort(names)
	if m.told == nil || !slices.Equal(m.told, names) {
		m.told = names
		m.cfg.Slots(slices.Clone(names))
	}
}

// update gives what is known of a slot now: what was known before, if it is the same
// slot and nothing is to be done.
func (m *Manager) update(ctx context.Context, l *link, was *slot, info abi.SlotInfo) (*slot, error) {
	same := was != nil && was.info.ID == info.ID && was.info.EKNames == info.EKNames && was.bond.sameCard(l.bond)
	if same && (was.complete || m.cfg.Now().Before(was.again) && was.info.Life == info.Life) {
		s := *was
		s.info = info
		return &s, nil
	}
	s, err := m.read(ctx, l, info)
	if err == nil && !s.complete && l.bond != nil && info.Life == abi.LifeClosed {
		if err = l.card.Certify(ctx, info); err == nil {
			s, err = m.read(ctx, l, info)
		}
	}
	switch {
	case lost(err):
		return nil, fmt.Errorf("slot %s: %w", info.Name, err)
	case err != nil:
		s = &slot{info: info, bond: l.bond, why: err}
	case s.complete:
		m.log.Info("a machine's endorsement keys are certified", "vm", info.Name, "keys", len(s.eks))
	default:
		s.why = lacks(l, info)
	}
	s.again = m.cfg.Now().Add(certifyAgain)
	return s, nil
}

// sameCard says whether what was judged by b stays so: a card keeps its key when its
// certificate is renewed.
func (b *bond) sameCard(o *bond) bool {
	return b == o || b != nil && o != nil && sameKey(b.cert, o.cert.PublicKey) == nil
}

// lacks says why a slot has no certificates.
func lacks(l *link, info abi.SlotInfo) error {
	switch {
	case l.bond == nil:
		return errors.New("the card itself has no certificate yet")
	case info.Life != abi.LifeClosed:
		return fmt.Errorf("its endorsement keys have no certificates, and get them when it is not %v any more", info.Life)
	}
	return errors.New("the card has certified it, and shows no certificates of its own")
}

// read asks the card for all that is to be known of a slot.
func (m *Manager) read(ctx context.Context, l *link, info abi.SlotInfo) (*slot, error) {
	st, body, err := l.card.EKStatement(ctx, info)
	if err != nil {
		return nil, err
	}
	s := &slot{info: info, statement: st.Raw, bond: l.bond, complete: true}
	for _, k := range body.EKs {
		c, err := l.card.EKCertificate(ctx, info, k.Handle)
		if err != nil && !errors.Is(err, coproc.ErrNotFound) {
			return nil, err
		}
		e := ek{handle: k.Handle, public: c.Public, cert: issued(c.DER, info.Name, l.bond)}
		s.complete = s.complete && e.cert != nil
		s.eks = append(s.eks, e)
	}
	return s, nil
}

// issued gives the certificate of an endorsement key, if it is of this machine and by
// this card: a card that lost its store left others in what a slot brings along.
func issued(der []byte, vm string, b *bond) *x509.Certificate {
	if len(der) == 0 || b == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil || cert.CheckSignatureFrom(b.cert) != nil {
		return nil
	}
	if name, err := ca.IsVTPMEK(cert); err != nil || name != vm {
		return nil
	}
	return cert
}

// slot gives what is known of a machine's slot, and asks the card if it is not known
// or was not complete. Errors are ErrNotFound and ErrUnavailable.
func (m *Manager) slot(ctx context.Context, vm string) (*slot, *link, error) {
	_, l := m.current()
	if l == nil {
		return nil, nil, fmt.Errorf("%w: the card is not reached", ErrUnavailable)
	}
	ctx, cancel := cardContext(ctx)
	defer cancel()
	info, err := l.card.Show(ctx, vm)
	switch {
	case errors.Is(err, coproc.ErrNotFound):
		return nil, nil, fmt.Errorf("%w: %.80q", ErrNotFound, vm)
	case err != nil:
		return nil, nil, &trouble{noCard, err}
	}
	s, err := m.update(ctx, l, m.known()[vm], info)
	if err != nil {
		return nil, nil, &trouble{noCard, err}
	}
	m.learn(s)
	return s, l, nil
}

// learn keeps what was asked in between, so that it is not asked each time.
func (m *Manager) learn(s *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was := m.slots[s.info.Name]; was != nil && was.complete && was.info.ID == s.info.ID {
		return
	}
	next := maps.Clone(m.slots)
	next[s.info.Name] = s
	m.slots = next
}
