// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// TPM response codes that the driver gives itself (Part 2, 6.6).
const (
	rcFailure     = 0x101 // TPM_RC_FAILURE
	rcCommandSize = 0x142 // TPM_RC_COMMAND_SIZE
	rcCanceled    = 0x909 // TPM_RC_CANCELED
)

// MaxKills is how many workers one command may kill.
const MaxKills = 2

// maxLosses is how many workers may be lost over one command in all. It is many,
// since neither a command that was done nor one whose card was ended is refused
// lightly; but a guest does not wait for ever.
const maxLosses = 16

// toll is what a command has cost.
type toll struct {
	kills  int // workers that died over it while their card lived
	losses int // all workers that were lost over it
}

// add counts a worker. with: it ended with its card, which is not a guest's doing.
func (t *toll) add(with bool) {
	t.losses++
	if !with {
		t.kills++
	}
}

// spent tells that no worker is given for the command any more.
func (t *toll) spent() bool { return t.kills >= MaxKills || t.losses >= maxLosses }

// putResponse writes a response that is only a code.
func putResponse(resp []byte, rc uint32) int {
	binary.BigEndian.PutUint16(resp[0:], 0x8001) // TPM_ST_NO_SESSIONS
	binary.BigEndian.PutUint32(resp[2:], 10)
	binary.BigEndian.PutUint32(resp[6:], rc)
	return 10
}

// Execute implements coproc.Slot. The end of ctx cancels the command; its
// response is returned all the same, so that none is ever lost.
func (s *Slot) Execute(ctx context.Context, cmd coproc.Command, resp []byte) (int, error) {
	if len(resp) < coproc.MaxTransfer {
		return 0, s.opError("execute", io.ErrShortBuffer)
	}
	if cmd.Locality > abi.MaxLocality {
		return 0, s.opError("execute", fmt.Errorf("locality %d: %w", cmd.Locality, coproc.ErrUnsupported))
	}
	if err := s.begin(ctx, "execute"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	if len(cmd.Bytes) > coproc.MaxTransfer {
		return putResponse(resp, rcCommandSize), nil
	}
	if !s.powered {
		return 0, s.opError("execute", fmt.Errorf("not powered on: %w", coproc.ErrUnsupported))
	}
	if s.failed != nil {
		return putResponse(resp, rcFailure), s.opError("execute", fmt.Errorf("%w: %w", coproc.ErrFailed, s.failed))
	}
	s.turn.Renew()
	s.seq++
	s.running.Store(s.seq)
	defer s.running.Store(0)
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, func() { s.Cancel() })()
	}
	n, err := s.execute(&cmd, resp)
	if err != nil && !errors.Is(err, coproc.ErrClosed) {
		return putResponse(resp, rcFailure), s.opError("execute", s.fail(err))
	}
	return n, s.opError("execute", err)
}

// execute submits a command until it is answered, through the deaths of
// workers. An error means that the slot is failed or closed.
func (s *Slot) execute(cmd *coproc.Command, resp []byte) (int, error) {
	sub := &s.sub
	*sub = abi.Submission{Op: abi.OpExecute, Locality: cmd.Locality, Seq: s.seq, Payload: cmd.Bytes}
	defer func() { sub.Payload = nil }()
	for cost := (toll{}); ; {
		life := s.cfg.life()
		c, sent, err := s.submit(sub, cmd.Timeout)
		switch {
		case err == nil && c.Status == abi.StatusOK:
			n := copy(resp, c.Payload)
			s.w.Wipe()
			return n, nil
		case err == nil:
			return 0, &coproc.Error{Status: c.Status, Err: coproc.StatusError(c.Status)}
		case s.closing.Load():
			return 0, coproc.ErrClosed
		}
		if s.loud() {
			s.cfg.Logger.Warn("no answer from the engine", "code", commandCode(cmd.Bytes), "cause", err)
		}
		if err := s.revive(); err != nil {
			return 0, err
		}
		if sent {
			cost.add(s.cfg.life() != life)
		}
		if s.recorded == sub.Seq && cost.losses < maxLosses {
			continue // it was done: submitting again gives the response
		}
		if errors.Is(err, ErrTimeout) {
			return putResponse(resp, rcCanceled), nil
		}
		if cost.spent() {
			s.logRefusal(cmd, cost)
			return putResponse(resp, rcFailure), nil
		}
	}
}

func (s *Slot) logRefusal(cmd *coproc.Command, cost toll) {
	if !s.loud() {
		return
	}
	why := "a command killed the engine twice and is refused"
	if cost.kills < MaxKills {
		why = "the card ended again and again under a command, which is refused"
	}
	s.cfg.Logger.Error(why, "code", commandCode(cmd.Bytes), "engines", cost.losses)
}

// submit sends a command and waits for its completion, canceling it after
// its timeout. sent tells whether the worker may have seen it.
func (s *Slot) submit(sub *abi.Submission, timeout time.Duration) (c abi.Completion, sent bool, err error) {
	if s.w == nil {
		return c, false, io.EOF
	}
	if err := s.w.Send(sub); err != nil {
		return c, false, err
	}
	if s.canceled.Load() == sub.Seq {
		s.w.Cancel(sub.Seq) // it came when there was no worker, or to one that died
	}
	c, err = s.w.Receive(sub, s.cfg.timeoutOf(timeout))
	if errors.Is(err, ErrTimeout) {
		s.w.Cancel(sub.Seq)
		c, err = s.w.Receive(sub, s.cfg.CancelGrace)
	}
	return c, true, err
}

// commandCode reads a command's code for the log.
func commandCode(cmd []byte) string {
	if len(cmd) < 10 {
		return "none"
	}
	return fmt.Sprintf("%#x", binary.BigEndian.Uint32(cmd[6:]))
}
