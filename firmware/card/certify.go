// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/provision"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// issuing is the part of a worker's job in which the card certifies the endorsement
// keys of the TPM at hand. The run's goroutine has it until the run is over.
type issuing struct {
	card   *Card
	vm     string
	chain  *chain              // nil: certificates are not to be issued
	keepNV bool                // nothing is to be written into the TPM
	slot   *slot               // whose keys have to be those in the table; nil: one that is made
	known  []abi.EKCertificate // of that slot, checked
	asked  bool
	list   []abi.EKCertificate // outcome
}

// certifier is a job with an issuing.
type certifier interface {
	certify(w *wire.Certify, has []abi.EKCertificate, chain []byte) ([]abi.EKCertificate, []byte, error)
}

// certify implements certifier. A worker asks once.
func (i *issuing) certify(w *wire.Certify, has []abi.EKCertificate, held []byte) (give []abi.EKCertificate, der []byte, err error) {
	if i.asked {
		return nil, nil, fmt.Errorf("second certify: %w", wire.ErrMalformed)
	}
	i.asked = true
	for _, e := range i.merge(has) {
		e, err := i.one(w, e)
		if err != nil {
			return nil, nil, err
		}
		i.list = append(i.list, e)
	}
	written := slices.ContainsFunc(i.list, func(e abi.EKCertificate) bool { return e.Index != 0 })
	if written && (len(held) == 0 || i.card.oursChain(held)) {
		der = i.chain.der
	}
	return i.list, der, nil
}

// merge gives the keys to certify, with what the TPM has for them. Those of a slot
// are in the table. What a guest has put in the place of one is not certified; the
// card knows the public area itself then, since it has seen the key made.
func (i *issuing) merge(has []abi.EKCertificate) []abi.EKCertificate {
	if i.slot == nil {
		return slices.DeleteFunc(has, func(e abi.EKCertificate) bool { return len(e.Public) == 0 })
	}
	var all []abi.EKCertificate
	for _, ek := range i.slot.rec.EKs {
		of := func(e abi.EKCertificate) bool { return e.Handle == ek.Handle }
		e := abi.EKCertificate{Handle: ek.Handle}
		if at := slices.IndexFunc(has, of); at >= 0 {
			e = has[at]
		}
		if _, name, err := provision.ParseEK(e.Public); err != nil || !bytes.Equal(name, ek.Name) {
			e.Public = nil
			if at := slices.IndexFunc(i.known, of); at >= 0 {
				e.Public = i.known[at].Public
			}
		}
		all = append(all, e)
	}
	return all
}

// one certifies one key. A key that is none of the kinds that are certified is kept
// without a certificate, as an imported TPM may have it.
func (i *issuing) one(w *wire.Certify, e abi.EKCertificate) (abi.EKCertificate, error) {
	out := abi.EKCertificate{Handle: e.Handle, Public: bytes.Clone(e.Public)}
	key, _, err := provision.ParseEK(e.Public)
	if err != nil {
		i.card.log.Warn("an endorsement key is not certified", "slot", i.vm, "handle", fmt.Sprintf("%#x", e.Handle), "err", err)
		return out, nil
	}
	if i.chain == nil {
		return out, nil
	}
	if out.DER, err = i.card.issue(i.chain, i.vm, modelOf(w), key); err != nil {
		return out, fmt.Errorf("certify the key at %#x: %w", e.Handle, err)
	}
	if !i.keepNV && (e.Index == 0 || i.card.ours(e.DER)) {
		out.Index = abi.CertificateIndex(e.Handle)
	}
	return out, nil
}

// agree checks that the keys that were certified are those that the worker says to
// have made.
func (i *issuing) agree(eks []abi.EK) error {
	for _, e := range i.list {
		at := slices.IndexFunc(eks, func(ek abi.EK) bool { return ek.Handle == e.Handle })
		if at < 0 {
			return fmt.Errorf("the worker had a key at %#x certified that it has not made: %w", e.Handle, wire.ErrMalformed)
		}
		_, name, err := provision.ParseEK(e.Public)
		if err == nil && !bytes.Equal(name, eks[at].Name) {
			return fmt.Errorf("the worker had %x certified and made %x: %w", name, eks[at].Name, wire.ErrMalformed)
		}
	}
	return nil
}

// certify answers a worker that asks for certificates. What it tells is copied
// before it is looked at.
func (r *run) certify(w *wire.Certify) error {
	job, ok := r.job.(certifier)
	if !ok {
		return fmt.Errorf("certify by a worker that serves: %w", wire.ErrMalformed)
	}
	b := bytes.Clone(r.mem[wire.BlobOffset:][:w.ListLen+w.ChainLen])
	has, err := abi.ParseEKCertificates(b[:w.ListLen])
	var list []abi.EKCertificate
	var der []byte
	if err == nil {
		list, der, err = job.certify(w, has, b[w.ListLen:])
	}
	answer := wire.Certified{Status: statusOf(err)}
	if err == nil {
		all := abi.AppendEKCertificates(nil, list)
		answer.ListLen, answer.ChainLen = uint32(len(all)), uint32(len(der))
		copy(r.mem[wire.BlobOffset:], append(all, der...))
	}
	return errors.Join(err, r.proc.Send(wire.AppendCertified(nil, answer)))
}

// recertifying is the job of a worker that writes new certificates into a slot.
type recertifying struct{ issuing }

func (*recertifying) check(sealed.Label) error { return nil }
func (*recertifying) ended(*run)               {}

func (j *recertifying) save(l sealed.Label, blob []byte, older bool) error {
	if older {
		return errNotPermitted
	}
	return j.slot.save(l, blob, false)
}

// certify certifies the endorsement keys of a slot that is not open.
//
// The state with the certificates is made durable first, and the file beside it
// after that. A crash in between leaves certificates in the TPM that the card does
// not tell of until the slot is certified again.
func (c *Card) certify(ctx context.Context, s *slot) error {
	ch, err := c.issuers()
	if err != nil {
		return err
	}
	if err := s.enter(ctx, busy); err != nil {
		return err
	}
	list, err := s.recertify(ctx, ch)
	if err == nil {
		if err = c.store.SaveCertificates(s.rec.ID, list); err != nil {
			err = fmt.Errorf("the certificates are in the TPM, but could not be kept: certify the slot again: %w", err)
		}
	}
	if err != nil {
		s.fail(err)
		return fmt.Errorf("slot %s: %w", s.rec.Name, err)
	}
	s.leave(nil)
	return nil
}

// recertify has a worker write new certificates.
//
// Preconditions: the slot is busy.
func (s *slot) recertify(ctx context.Context, ch *chain) ([]abi.EKCertificate, error) {
	c := s.card
	blob, err := c.store.ReadState(s.rec.ID)
	if err != nil {
		return nil, err
	}
	setup, err := s.setup(wire.Recertify|wire.Certifies, blob)
	if err != nil {
		return nil, err
	}
	defer setup.Clear()
	volatile, err := c.store.Volatile(s.rec.ID)
	if err != nil {
		return nil, err
	}
	defer volatile.Close()
	j := &recertifying{issuing{card: c, vm: s.rec.Name, chain: ch, slot: s}}
	j.known, _ = s.certificates() // damaged ones are made anew
	r, err := c.start(ctx, c.waits.work, j, setup, blob, int(volatile.Fd()))
	if err != nil {
		return nil, err
	}
	if _, err := r.finish(ctx); err != nil {
		return nil, fmt.Errorf("certify: %w", err)
	}
	if !j.asked {
		return nil, fmt.Errorf("certify: worker did not ask for certificates: %w", wire.ErrMalformed)
	}
	return j.list, nil
}

// certificates gives the slot's certificates, checked. A slot that was made by an
// earlier version has none.
func (s *slot) certificates() ([]abi.EKCertificate, error) {
	list, err := s.card.store.Certificates(s.rec.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for i := range list {
		at := slices.IndexFunc(s.rec.EKs, func(ek abi.EK) bool { return ek.Handle == list[i].Handle })
		if at < 0 {
			err = fmt.Errorf("there is no key at %#x", list[i].Handle)
		} else if bad := s.card.checkIssued(&list[i], &s.rec.EKs[at], s.rec.Name); bad != nil {
			err = bad
		}
	}
	if err != nil {
		return nil, refuse(abi.StatusCorrupt, "the certificates of slot %s are damaged, certify it again: %w", s.rec.Name, err)
	}
	return list, nil
}

func (s *Session) certifySlot(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	slot, err := s.card.numbered(sub.Slot)
	if err == nil {
		err = s.card.certify(ctx, slot)
	}
	if err == nil {
		s.card.log.Info("slot certified", "slot", slot.rec.Name, "by", s.who.Name)
	}
	return nil, nil, err
}

func (s *Session) readCertificate(_ context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	handle, err := abi.ParseHandle(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	slot, err := s.card.numbered(sub.Slot)
	if err != nil {
		return nil, nil, err
	}
	if !slices.ContainsFunc(slot.rec.EKs, func(ek abi.EK) bool { return ek.Handle == handle }) {
		return nil, nil, refuse(abi.StatusNoSlot, "slot %s has no endorsement key at %#x", slot.rec.Name, handle)
	}
	list, err := slot.certificates()
	if err != nil {
		return nil, nil, err
	}
	for i := range list {
		if list[i].Handle == handle {
			return abi.AppendEKCertificate(dst, &list[i]), nil, nil
		}
	}
	return abi.AppendEKCertificate(dst, &abi.EKCertificate{Handle: handle}), nil, nil
}
