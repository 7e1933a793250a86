// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
	"hwvtpm/internal/turn"
)

// server answers the submissions of one data socket.
type server struct {
	slot    *slot
	openErr error // why there is no slot; told at identify
	running *running
	above   *supervised // nil: there is no card
	meter   *meter      // nil: nobody wants to know
	hello   bool        // identify was answered
	moving  transfer    // a state on its way out or in
	hashing []byte      // what there is of a hash sequence; nil: nothing
	turn    turn.Turn

	in  [abi.MaxMessage + 1]byte // one more, to notice what is too long
	out [abi.MaxMessage]byte
}

// serve runs until the driver closes its end, which is the orderly end, or says
// OpClose, or the card wants the worker to exit.
func (s *server) serve(fd int) error {
	for {
		n, exit, err := s.next(fd)
		if exit {
			return err
		}
		if n == 0 && err == nil || hungUp(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read submission: %w", err)
		}
		if last, err := s.answer(fd, n); last {
			return err
		}
		s.turn.Renew()
	}
}

// next reads a message into s.in. It tells whether to exit instead.
func (s *server) next(fd int) (n int, exit bool, err error) {
	if s.above != nil {
		return s.above.next(fd, s.in[:], s.meter.began)
	}
	n, err = readPacket(fd, s.in[:])
	return n, false, err
}

// answer answers the message of n bytes in s.in. It tells whether that was the
// last one.
func (s *server) answer(fd, n int) (last bool, err error) {
	s.meter.begin()
	size, last := s.handle(s.in[:n])
	defer func() {
		clear(s.in[:n])
		clear(s.out[:size])
	}()
	if s.above != nil && s.above.broken != nil {
		return true, s.above.broken // whether it was done the next worker will know
	}
	if s.slot != nil {
		s.meter.publish(s.slot)
	}
	err = writePacket(fd, s.out[:size])
	s.meter.end()
	switch {
	case hungUp(err):
		return true, nil
	case err != nil:
		return true, fmt.Errorf("write completion: %w", err)
	}
	return last, nil
}

// handle answers one message in s.out and returns the length of the answer,
// and whether it is the last.
func (s *server) handle(msg []byte) (int, bool) {
	sub, err := abi.ParseSubmission(msg)
	c := abi.Completion{Op: sub.Op, Seq: sub.Seq, Slot: sub.Slot}
	payload := s.out[abi.HeaderSize:]
	n := 0
	if err == nil {
		n, c.Flags, err = s.dispatch(&sub, payload)
	}
	c.Status = statusOf(err)
	if err != nil {
		n = 0
		switch sub.Op {
		case abi.OpIdentify, abi.OpStateLoad, abi.OpMapPCRs, abi.OpBootEvidence, abi.OpHash:
			n = copy(payload[:abi.MaxText], err.Error())
		}
	}
	abi.PutCompletionHeader(s.out[:], &c, n)
	last := sub.Op == abi.OpClose || sub.Op == abi.OpIdentify && err != nil
	return abi.HeaderSize + n, last
}

func (s *server) dispatch(sub *abi.Submission, payload []byte) (int, abi.Flags, error) {
	if !s.hello && sub.Op != abi.OpIdentify {
		return 0, 0, fmt.Errorf("identify first: %w", errOrder)
	}
	if sub.Slot != 0 {
		return 0, 0, errNoSlot
	}
	if sub.Op == abi.OpExecute {
		n, flags, err := s.execute(sub, payload)
		s.meter.response(payload[:n])
		return n, flags, err
	}
	if sub.Op == abi.OpHash {
		return s.hash(sub, payload)
	}
	n, err := s.admin(sub, payload[:0])
	return n, 0, err
}

// admin answers everything but OpExecute and OpHash.
func (s *server) admin(sub *abi.Submission, dst []byte) (int, error) {
	if sub.Op == abi.OpIdentify {
		return s.identify(sub.Payload, dst)
	}
	if sub.Op == abi.OpPowerOn {
		return s.powerOn(sub.Payload, dst)
	}
	if sub.Op == abi.OpMapPCRs {
		return 0, s.mapPCRs(sub.Payload)
	}
	if sub.Op == abi.OpBootEvidence {
		return 0, s.keepEvidence(sub.Payload)
	}
	if sub.Op >= abi.OpStateSave && sub.Op <= abi.OpStateLoad {
		return s.move(sub, dst)
	}
	if len(sub.Payload) != 0 {
		return 0, fmt.Errorf("payload of %d bytes: %w", len(sub.Payload), abi.ErrMalformed)
	}
	switch sub.Op {
	case abi.OpReset:
		return 0, s.slot.reset()
	case abi.OpHealth:
		return len(abi.AppendHealthReply(dst, s.health())), nil
	case abi.OpClose:
		return 0, nil // serve ends, and its caller closes the slot
	}
	return 0, errBadOpcode
}

func (s *server) identify(payload, dst []byte) (int, error) {
	if s.openErr != nil {
		return 0, s.openErr
	}
	h, err := abi.ParseHello(payload)
	if err != nil {
		return 0, err
	}
	v, ok := h.Choose()
	if !ok {
		return 0, fmt.Errorf("driver speaks %d to %d, card %d to %d: %w", h.Min, h.Max, abi.MinVersion, abi.Version, errBadVersion)
	}
	s.hello = true
	return len(abi.AppendIdentity(dst, &abi.Identity{
		Version:       v,
		EngineVersion: engine.Version(),
		Slots:         1,
		MaxPayload:    abi.MaxPayload,
		Generation:    s.slot.state.generation,
		LastSeq:       s.slot.seq,
		SlotID:        s.slot.state.slotID,
	})), nil
}

func (s *server) powerOn(payload, dst []byte) (int, error) {
	if len(payload) != abi.RunIDSize {
		return 0, fmt.Errorf("run id of %d bytes: %w", len(payload), abi.ErrMalformed)
	}
	r, err := s.slot.powerOn([abi.RunIDSize]byte(payload))
	if err != nil {
		return 0, err
	}
	return len(abi.AppendPowerOnReply(dst, r)), nil
}

func (s *server) health() *abi.HealthReply {
	st := &s.slot.stats
	return &abi.HealthReply{
		State:         s.slot.phase,
		PID:           uint32(os.Getpid()),
		Commands:      st.Commands,
		Checkpoints:   st.Checkpoints,
		Journaled:     st.Journaled,
		DurableWrites: st.Durable,
		Generation:    s.slot.state.generation,
		EngineVersion: engine.Version(),
	}
}

// hungUp tells whether the driver has closed its end without reading all, which
// is no less orderly.
func hungUp(err error) bool { return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) }

// readPacket and writePacket are blocking system calls on the owner's thread:
// no runtime poller stands between the driver's packet and the TPM.

func readPacket(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func writePacket(fd int, b []byte) error {
	for {
		_, err := unix.Write(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
