// SPDX-License-Identifier: Apache-2.0

package coprocdtest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"

	"hwvtpm/coproc/abi"
)

// session is what the card knows of one client.
type session struct {
	card      *Card
	challenge *abi.Challenge
}

// execute executes an admin command.
func (s *session) execute(sub abi.Submission) (abi.Status, []byte, []int) {
	switch sub.Op {
	case abi.OpCardIdentify:
		return abi.StatusOK, abi.AppendCardIdentity(nil, &abi.CardIdentity{
			Min: abi.MinVersion, Max: abi.Version, Slots: 64, MaxPayload: abi.MaxPayload, Serial: s.card.serial,
		}), nil
	case abi.OpCardCounters:
		return abi.StatusOK, abi.AppendCardCounters(nil, &abi.CardCounters{Creates: 1}), nil
	case abi.OpCardHealth:
		h := s.card.health()
		return abi.StatusOK, abi.AppendCardHealth(nil, &h), nil
	case abi.OpCardKey:
		return abi.StatusOK, s.card.der, nil
	case abi.OpSlotCreate:
		return s.create(sub.Payload)
	case abi.OpSlotList:
		r, err := abi.ParseListRequest(sub.Payload)
		if err != nil {
			return refuse(abi.StatusBadField, "%v", err)
		}
		return abi.StatusOK, s.card.list(r.From), nil
	case abi.OpSlotShow, abi.OpSlotChallenge:
		return s.byName(sub)
	case abi.OpStatement:
		return s.statement(sub)
	case abi.OpCardCertify:
		s.card.mu.Lock()
		defer s.card.mu.Unlock()
		s.card.chain = bytes.Clone(sub.Payload)
		return abi.StatusOK, nil, nil
	}
	return s.bySlot(sub)
}

func (s *session) create(payload []byte) (abi.Status, []byte, []int) {
	req, err := abi.ParseSlotCreate(payload)
	if err != nil {
		return refuse(abi.StatusBadField, "%v", err)
	}
	status, slot := s.card.add(&req)
	if status != abi.StatusOK {
		return refuse(status, "there is a slot called %s already", req.Name)
	}
	return described(slot)
}

func described(slot *Slot) (abi.Status, []byte, []int) {
	info := slot.Info()
	return abi.StatusOK, abi.AppendSlotInfo(nil, &info), nil
}

// byName executes what names the slot.
func (s *session) byName(sub abi.Submission) (abi.Status, []byte, []int) {
	slot := s.card.Slot(string(sub.Payload))
	if slot == nil {
		return refuse(abi.StatusNoSlot, "there is no slot of this name")
	}
	if sub.Op == abi.OpSlotShow {
		return described(slot)
	}
	info := slot.Info()
	s.challenge = &abi.Challenge{Number: info.Number, ID: info.ID, Serial: s.card.serial}
	rand.Read(s.challenge.Nonce[:])
	return abi.StatusOK, abi.AppendChallenge(nil, s.challenge), nil
}

// bySlot executes what has the slot's number in the header.
func (s *session) bySlot(sub abi.Submission) (abi.Status, []byte, []int) {
	slot := s.card.byNumber(sub.Slot)
	if slot == nil {
		return refuse(abi.StatusNoSlot, "there is no slot of this number")
	}
	info := slot.Info()
	open := info.Life == abi.LifeLive
	switch sub.Op {
	case abi.OpSlotOpen:
		return s.open(slot, sub.Payload)
	case abi.OpSlotPark:
		return abi.StatusOK, nil, nil
	case abi.OpSlotLock, abi.OpSlotUnlock:
		if open {
			return refuse(abi.StatusInUse, "slot is open")
		}
		slot.setLocked(sub.Op == abi.OpSlotLock)
		return abi.StatusOK, nil, nil
	case abi.OpSlotAdopt:
		s.card.mu.Lock()
		s.card.last = string(sub.Payload)
		s.card.mu.Unlock()
		return abi.StatusOK, nil, nil
	case abi.OpSlotClone:
		return s.create(sub.Payload)
	case abi.OpSlotCertify:
		return s.certify(slot)
	case abi.OpEKCertificate:
		return slot.certificate(sub.Payload)
	case abi.OpSlotDestroy:
		return s.destroy(slot, sub.Payload)
	}
	return refuse(abi.StatusBadOpcode, "opcode %#x is not known", sub.Op)
}

func (s *session) open(slot *Slot, payload []byte) (abi.Status, []byte, []int) {
	ch := s.challenge
	s.challenge = nil
	proof, err := abi.ParseProof(payload)
	if err != nil {
		return refuse(abi.StatusBadField, "%v", err)
	}
	info := slot.Info()
	switch {
	case ch == nil || ch.ID != info.ID ||
		!ed25519.Verify(info.AccessKey[:], abi.OpenMessage(ch.Serial, ch.ID, ch.Nonce), proof[:]):
		return refuse(abi.StatusDenied, "this is not the access key of the slot")
	case info.Life == abi.LifeLocked:
		return refuse(abi.StatusLocked, "the slot is locked")
	}
	files := slot.open()
	if files == nil {
		return refuse(abi.StatusInUse, "another client has the slot open")
	}
	return abi.StatusOK, nil, files
}

// certify gives the slot's key a certificate: bytes that stand for one.
func (s *session) certify(slot *Slot) (abi.Status, []byte, []int) {
	switch {
	case slot.Info().Life == abi.LifeLive:
		return refuse(abi.StatusInUse, "slot is open")
	case s.card.Certificates() == nil:
		return refuse(abi.StatusOrder, "the card has no certificates")
	}
	slot.mu.Lock()
	defer slot.mu.Unlock()
	slot.der = append([]byte("certificate by "), s.card.Certificates()...)
	return abi.StatusOK, nil, nil
}

func (s *session) destroy(slot *Slot, payload []byte) (abi.Status, []byte, []int) {
	ref, err := abi.ParseSlotRef(payload)
	info := slot.Info()
	if err != nil || ref.ID != info.ID {
		return refuse(abi.StatusNoSlot, "there is no such slot")
	}
	if info.Life == abi.LifeLive {
		return refuse(abi.StatusInUse, "slot is open")
	}
	s.card.mu.Lock()
	delete(s.card.slots, info.Number)
	s.card.mu.Unlock()
	body := abi.AppendEraseBody(nil, &abi.EraseBody{Generation: info.Generation, Epoch: info.Epoch, Name: info.Name})
	return abi.StatusOK, s.card.statement(abi.StatementErase, info.ID, ref.Nonce, body), nil
}

func (s *session) statement(sub abi.Submission) (abi.Status, []byte, []int) {
	r, err := abi.ParseStatementRequest(sub.Payload)
	if err != nil {
		return refuse(abi.StatusBadField, "%v", err)
	}
	if r.Type == abi.StatementHealth {
		h := s.card.health()
		return abi.StatusOK, s.card.statement(r.Type, [16]byte{}, r.Nonce, abi.AppendCardHealth(nil, &h)), nil
	}
	slot := s.card.byNumber(sub.Slot)
	if slot == nil || r.Type != abi.StatementEK {
		return refuse(abi.StatusNoSlot, "there is no such slot")
	}
	info := slot.Info()
	body := abi.AppendEKBody(nil, &abi.EKBody{Generation: info.Generation, Epoch: info.Epoch, AccessKey: info.AccessKey, EKs: slot.eks()})
	return abi.StatusOK, s.card.statement(r.Type, info.ID, r.Nonce, body), nil
}
