// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"crypto/rand"
	"fmt"

	"hwvtpm/coproc/abi"
)

// Principal is who a session belongs to.
type Principal struct {
	Admin bool
	Name  string // for the log
}

// Session is a client's conversation with the card. One goroutine uses it.
type Session struct {
	card      *Card
	who       Principal
	challenge *abi.Challenge // not used yet; nil: none
	incoming  []byte         // of an import, secret; its capacity is its size
}

// NewSession begins a session.
func (c *Card) NewSession(p Principal) *Session { return &Session{card: c, who: p} }

// Close forgets the session. Slots that it has opened stay open.
func (s *Session) Close() {
	s.challenge = nil
	s.dropImport()
}

// Reply is the answer to a submission.
type Reply struct {
	Status  abi.Status
	Payload []byte // with an error, text that says why and what to do
	Grant   *Grant // of OpSlotOpen; the receiver owns it
}

// op is what the card does for an opcode.
type op struct {
	admin bool
	size  int // of the payload; negative: the opcode's own affair
	do    func(s *Session, ctx context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error)
}

var ops = map[abi.Opcode]op{
	abi.OpCardIdentify:  {false, 0, (*Session).identify},
	abi.OpCardCounters:  {false, 0, (*Session).readCounters},
	abi.OpCardHealth:    {false, 0, (*Session).readHealth},
	abi.OpCardKey:       {false, 0, (*Session).readKey},
	abi.OpSlotShow:      {false, -1, (*Session).show},
	abi.OpSlotChallenge: {false, -1, (*Session).ask},
	abi.OpSlotOpen:      {false, abi.ProofSize, (*Session).open},
	abi.OpSlotCreate:    {true, -1, (*Session).create},
	abi.OpSlotClone:     {true, -1, (*Session).clone},
	abi.OpSlotImport:    {true, -1, (*Session).importTPM},
	abi.OpSlotList:      {true, -1, (*Session).list},
	abi.OpSlotPark:      {true, 0, (*Session).park},
	abi.OpSlotDestroy:   {true, -1, (*Session).destroy},
	abi.OpSlotAdopt:     {true, -1, (*Session).adopt},
	abi.OpSlotRestore:   {true, -1, (*Session).restore},
	abi.OpSlotLock:      {true, 0, (*Session).lock},
	abi.OpSlotUnlock:    {true, 0, (*Session).unlock},
	abi.OpStatement:     {true, -1, (*Session).state},
	abi.OpCardCertify:   {true, -1, (*Session).setChain},
	abi.OpSlotCertify:   {true, 0, (*Session).certifySlot},
	abi.OpEKCertificate: {true, -1, (*Session).readCertificate},
}

// Do executes one submission. The reply's payload may be in dst. A call that
// waits, for a worker mostly, ends early with ctx.
func (s *Session) Do(ctx context.Context, sub *abi.Submission, dst []byte) Reply {
	payload, grant, err := s.do(ctx, sub, dst[:0])
	if err == nil {
		return Reply{Status: abi.StatusOK, Payload: payload, Grant: grant}
	}
	status := statusOf(err)
	if status == abi.StatusInternal || status == abi.StatusStorage {
		if ok, dropped := s.card.failures.allow(); ok {
			s.card.log.Error("admin command failed", "opcode", fmt.Sprintf("%#x", uint8(sub.Op)), "by", s.who.Name, "err", err, "not logged before", dropped)
		}
	}
	return Reply{Status: status, Payload: append(dst[:0], textOf(err)...)}
}

func (s *Session) do(ctx context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	o, ok := ops[sub.Op]
	switch {
	case !ok:
		return nil, nil, refuse(abi.StatusBadOpcode, "opcode %#x is not known", uint8(sub.Op))
	case o.admin && !s.who.Admin:
		return nil, nil, s.denied("for administrators only", "opcode", fmt.Sprintf("%#x", uint8(sub.Op)))
	case o.size >= 0 && len(sub.Payload) != o.size:
		return nil, nil, refuse(abi.StatusBadField, "payload of %d bytes, want %d", len(sub.Payload), o.size)
	case s.card.ctx.Err() != nil:
		return nil, nil, refuse(abi.StatusInternal, "card is closing")
	}
	return o.do(s, ctx, sub, dst)
}

// denied counts and logs what somebody may not do, and refuses it.
func (s *Session) denied(why string, args ...any) error {
	s.card.counters.denied.Add(1)
	if ok, dropped := s.card.denials.allow(); ok {
		s.card.log.Warn("denied: "+why, append(args, "to", s.who.Name, "not logged before", dropped)...)
	}
	return refuse(abi.StatusDenied, "denied: %s", why)
}

func (s *Session) identify(_ context.Context, _ *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	return abi.AppendCardIdentity(dst, &abi.CardIdentity{
		Min: abi.MinVersion, Max: abi.Version, Slots: uint32(s.card.cfg.MaxSlots), MaxPayload: abi.MaxPayload,
		Serial: s.card.serial,
	}), nil, nil
}

func (s *Session) show(_ context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	slot, err := s.card.named(string(sub.Payload))
	if err != nil {
		return nil, nil, err
	}
	info := slot.info()
	if !s.who.Admin {
		info.WorkerPID = 0
	}
	return abi.AppendSlotInfo(dst, &info), nil, nil
}

// ask gives a challenge, in place of the last one.
func (s *Session) ask(_ context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	s.challenge = nil
	slot, err := s.card.named(string(sub.Payload))
	if err != nil {
		return nil, nil, err
	}
	s.challenge = &abi.Challenge{Number: slot.rec.Number, ID: slot.rec.ID, Serial: s.card.serial}
	rand.Read(s.challenge.Nonce[:])
	return abi.AppendChallenge(dst, s.challenge), nil, nil
}

// open opens the slot of the challenge, which is used up whatever comes of it.
func (s *Session) open(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	ch := s.challenge
	s.challenge = nil
	proof, err := abi.ParseProof(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	if ch == nil || ch.Number != sub.Slot {
		return nil, nil, refuse(abi.StatusOrder, "ask for a challenge of this slot first; each is good once")
	}
	slot, err := s.card.numbered(ch.Number)
	if err != nil {
		return nil, nil, err
	}
	if slot.rec.ID != ch.ID {
		return nil, nil, refuse(abi.StatusNoSlot, "slot %d was made anew", ch.Number)
	}
	if !slot.verify(abi.OpenMessage(ch.Serial, ch.ID, ch.Nonce), proof) {
		return nil, nil, s.denied("the proof is not by the slot's access key", "slot", slot.rec.Name)
	}
	grant, err := slot.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.card.counters.opens.Add(1)
	return nil, grant, nil
}

func (s *Session) create(ctx context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	req, err := abi.ParseSlotCreate(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	made, err := s.card.create(ctx, &req)
	return s.made(made, err, &s.card.counters.creates, dst)
}

func (s *Session) clone(ctx context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	req, err := abi.ParseSlotCreate(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	source, err := s.card.numbered(sub.Slot)
	if err != nil {
		return nil, nil, err
	}
	made, err := s.card.clone(ctx, source, &req)
	return s.made(made, err, &s.card.counters.clones, dst)
}

func (s *Session) list(_ context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	req, err := abi.ParseListRequest(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for _, slot := range s.card.all() {
		if slot.rec.Number < req.From || n == abi.MaxListed || len(dst)+abi.SlotInfoSize > abi.MaxPayload {
			continue
		}
		info := slot.info()
		dst = abi.AppendSlotInfo(dst, &info)
		n++
	}
	return dst, nil, nil
}

func (s *Session) park(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	slot, err := s.card.numbered(sub.Slot)
	if err == nil {
		err = slot.parkAndWait(ctx)
	}
	return nil, nil, err
}

func (s *Session) destroy(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	ref, err := abi.ParseSlotRef(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	slot, err := s.card.numbered(sub.Slot)
	if err != nil {
		return nil, nil, err
	}
	receipt, err := s.card.destroy(ctx, slot, &ref)
	if err != nil {
		return nil, nil, err
	}
	s.card.counters.destroys.Add(1)
	s.card.log.Info("slot destroyed", "slot", slot.rec.Name, "by", s.who.Name)
	return receipt, nil, nil
}

func (s *Session) adopt(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	return nil, nil, s.accept(ctx, sub, s.card.adopt)
}

func (s *Session) restore(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	return nil, nil, s.accept(ctx, sub, s.card.permitRestore)
}

// accept accepts that a slot goes back, for a reason that is logged.
func (s *Session) accept(ctx context.Context, sub *abi.Submission, how func(context.Context, *slot, string) error) error {
	if n := len(sub.Payload); n == 0 || n > abi.MaxReason {
		return refuse(abi.StatusBadField, "a reason of 1 to %d bytes is needed", abi.MaxReason)
	}
	slot, err := s.card.numbered(sub.Slot)
	if err != nil {
		return err
	}
	reason := fmt.Sprintf("%s (by %s)", abi.Text(sub.Payload), s.who.Name)
	if err := how(ctx, slot, reason); err != nil {
		return err
	}
	s.card.counters.adopts.Add(1)
	return nil
}

func (s *Session) lock(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	return nil, nil, s.setLocked(ctx, sub.Slot, true)
}

func (s *Session) unlock(ctx context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	return nil, nil, s.setLocked(ctx, sub.Slot, false)
}

func (s *Session) setLocked(ctx context.Context, number uint32, locked bool) error {
	slot, err := s.card.numbered(number)
	if err == nil {
		err = s.card.setLocked(ctx, slot, locked)
	}
	if err == nil {
		s.card.log.Info("slot lock set", "slot", slot.rec.Name, "locked", locked, "by", s.who.Name)
	}
	return err
}

// made answers with a slot that was created.
func (s *Session) made(made *slot, err error, count *counter, dst []byte) ([]byte, *Grant, error) {
	if made == nil {
		return nil, nil, err
	}
	count.Add(1)
	s.card.log.Info("slot created", "slot", made.rec.Name, "number", made.rec.Number, "by", s.who.Name)
	if err != nil {
		return nil, nil, err
	}
	info := made.info()
	return abi.AppendSlotInfo(dst, &info), nil, nil
}
