// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"sync"
	"testing"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
)

// fakeCard is a card whose keys are software's. It certifies slots when they are made,
// if it has certificates, as the real one does.
type fakeCard struct {
	t testing.TB

	mu     sync.Mutex // guards what follows
	key    *ecdsa.PrivateKey
	chain  []*x509.Certificate
	slots  map[string]*fakeSlot
	number uint32
	away   bool
	given  int // certificates
}

type fakeSlot struct {
	info abi.SlotInfo
	ek   *ecdsa.PrivateKey
	der  []byte
}

func newFakeCard(t testing.TB) *fakeCard {
	return &fakeCard{t: t, key: newKey(t), slots: map[string]*fakeSlot{}}
}

// fakeConn is a connection to the card.
type fakeConn struct{ *fakeCard }

func (fakeConn) Close() error { return nil }

// connect connects, as Config.Card does.
func (f *fakeCard) connect(context.Context) (Card, error) {
	defer f.lock()()
	if f.away {
		return nil, errTest
	}
	return fakeConn{f}, nil
}

func (f *fakeCard) lock() (unlock func()) {
	f.mu.Lock()
	return f.mu.Unlock
}

// leave breaks connections, and lets nobody connect until it comes back.
func (f *fakeCard) leave(away bool) {
	defer f.lock()()
	f.away = away
}

// replace gives the card another key.
func (f *fakeCard) replace(key *ecdsa.PrivateKey) {
	defer f.lock()()
	f.key, f.chain = key, nil
}

// add makes a slot.
func (f *fakeCard) add(name string) *fakeSlot {
	defer f.lock()()
	f.number++
	s := &fakeSlot{ek: newKey(f.t), info: abi.SlotInfo{Number: f.number, Name: name, Keys: abi.KeyP256EK, Banks: abi.BankSHA256}}
	rand.Read(s.info.ID[:])
	s.info.EKNames = sha256.Sum256(ekName(ekPublic(&s.ek.PublicKey)))
	f.slots[name] = s
	f.certify(s)
	return s
}

// remove destroys a slot.
func (f *fakeCard) remove(name string) {
	defer f.lock()()
	delete(f.slots, name)
}

// live opens or closes a slot.
func (f *fakeCard) live(name string, life abi.SlotLife) {
	defer f.lock()()
	f.slots[name].info.Life = life
}

// certify is called with mu held.
func (f *fakeCard) certify(s *fakeSlot) {
	if f.chain == nil {
		return
	}
	t, err := ca.VTPMEK(s.info.Name, ca.Model{Manufacturer: "id:48575654", Model: "hwvtpm", Version: "id:00000001", Family: "2.0", Revision: 164},
		s.ek.Public(), ca.Validity{Now: time.Now(), Life: 1000 * time.Hour})
	if err != nil {
		f.t.Error(err)
		return
	}
	cert, err := (&ca.Issuer{Certificate: f.chain[0], Signer: f.key}).Issue(t, s.ek.Public())
	if err != nil {
		f.t.Error(err)
		return
	}
	s.der = cert.Raw
}

// refuse is the card's own answer.
func refuse(op string, status abi.Status) error {
	return &coproc.Error{Op: op, Status: status, Err: coproc.StatusError(status)}
}

// enter takes the card, unless it is away.
func (f *fakeCard) enter(op string) (unlock func(), err error) {
	unlock = f.lock()
	if f.away {
		unlock()
		return func() {}, &coproc.Error{Op: op, Err: errTest}
	}
	return unlock, nil
}

func (f *fakeCard) CardKey(context.Context) (admin.CardKey, error) {
	unlock, err := f.enter("card key")
	defer unlock()
	if err != nil {
		return admin.CardKey{}, err
	}
	return f.cardKey(), nil
}

func (f *fakeCard) cardKey() admin.CardKey {
	der := spki(f.t, f.key.Public())
	return admin.CardKey{Public: &f.key.PublicKey, DER: der, Serial: abi.SerialOf(der)}
}

func (f *fakeCard) SetCertificates(_ context.Context, chain [][]byte) error {
	unlock, err := f.enter("certify card")
	defer unlock()
	if err != nil {
		return err
	}
	certs, err := x509.ParseCertificates(joined(chain))
	if err != nil || sameKey(certs[0], f.key.Public()) != nil || certs[0].CheckSignatureFrom(certs[1]) != nil {
		return refuse("certify card", abi.StatusDenied)
	}
	f.chain = certs
	f.given++
	return nil
}

func (f *fakeCard) sign(st *abi.Statement) admin.Signed {
	key := f.cardKey()
	st.Serial, st.Time = key.Serial, time.Now().Unix()
	b := abi.AppendStatement(nil, st)
	digest := sha256.Sum256(b)
	sig, err := ecdsa.SignASN1(rand.Reader, f.key, digest[:])
	if err != nil {
		f.t.Error(err)
	}
	return admin.Signed{Statement: *st, Key: key, Raw: abi.AppendSignature(b, sig)}
}

func (f *fakeCard) HealthStatementFor(_ context.Context, nonce [32]byte) (admin.Signed, abi.CardHealth, error) {
	unlock, err := f.enter("health")
	defer unlock()
	if err != nil {
		return admin.Signed{}, abi.CardHealth{}, err
	}
	var h abi.CardHealth
	return f.sign(&abi.Statement{Type: abi.StatementHealth, Nonce: nonce, Body: abi.AppendCardHealth(nil, &h)}), h, nil
}

func (f *fakeCard) List(context.Context) ([]abi.SlotInfo, error) {
	unlock, err := f.enter("list slots")
	defer unlock()
	var all []abi.SlotInfo
	for _, s := range f.slots {
		all = append(all, s.info)
	}
	slices.SortFunc(all, func(a, b abi.SlotInfo) int { return int(a.Number) - int(b.Number) })
	return all, err
}

func (f *fakeCard) Show(_ context.Context, name string) (abi.SlotInfo, error) {
	unlock, err := f.enter("show")
	defer unlock()
	s := f.slots[name]
	if err == nil && s == nil {
		err = refuse("show", abi.StatusNoSlot)
	}
	if err != nil {
		return abi.SlotInfo{}, err
	}
	return s.info, nil
}

// find gives a slot by its description.
func (f *fakeCard) find(op string, info abi.SlotInfo) (*fakeSlot, error) {
	if s := f.slots[info.Name]; s != nil && s.info.Number == info.Number {
		return s, nil
	}
	return nil, refuse(op, abi.StatusNoSlot)
}

func (f *fakeCard) Certify(_ context.Context, info abi.SlotInfo) error {
	unlock, err := f.enter("certify")
	defer unlock()
	if err != nil {
		return err
	}
	s, err := f.find("certify", info)
	if err == nil && s.info.Life != abi.LifeClosed {
		err = refuse("certify", abi.StatusInUse)
	}
	if err == nil {
		f.certify(s)
	}
	return err
}

func (f *fakeCard) EKCertificate(_ context.Context, info abi.SlotInfo, h uint32) (abi.EKCertificate, error) {
	unlock, err := f.enter("EK certificate")
	defer unlock()
	if err != nil {
		return abi.EKCertificate{}, err
	}
	s, err := f.find("EK certificate", info)
	if err != nil {
		return abi.EKCertificate{}, err
	}
	return abi.EKCertificate{Handle: h, Public: ekPublic(&s.ek.PublicKey), DER: s.der}, nil
}

func (f *fakeCard) EKStatement(_ context.Context, info abi.SlotInfo) (admin.Signed, abi.EKBody, error) {
	unlock, err := f.enter("statement")
	defer unlock()
	if err != nil {
		return admin.Signed{}, abi.EKBody{}, err
	}
	s, err := f.find("statement", info)
	if err != nil {
		return admin.Signed{}, abi.EKBody{}, err
	}
	body := abi.EKBody{EKs: []abi.EK{{Handle: handle, Name: ekName(ekPublic(&s.ek.PublicKey))}}}
	return f.sign(&abi.Statement{Type: abi.StatementEK, Slot: info.ID, Body: abi.AppendEKBody(nil, &body)}), body, nil
}
