// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// Worker is one life of the slot on the card's side, from [abi.OpIdentify] to
// its end. Send, Receive, Wipe, Stop and Kill are called by one goroutine at a
// time; Cancel and Shutdown may be called by any, also after the end.
type Worker interface {
	// Identity is what the card answered to OpIdentify.
	Identity() abi.Identity

	// Send hands one submission to the card.
	Send(sub *abi.Submission) error

	// Receive waits for the completion of sub, whose payload is valid until
	// the next call. ErrTimeout: none came yet. Any other error: the worker
	// is gone, or not to be trusted any more.
	Receive(sub *abi.Submission, timeout time.Duration) (abi.Completion, error)

	// Wipe clears what the last Send and Receive left in buffers.
	Wipe()

	// Cancel asks the card to cancel the command seq. It does not block.
	Cancel(seq uint64) error

	// Shutdown makes a Receive that waits give up with an error.
	Shutdown()

	// Stop ends the worker in order, and by force after timeout.
	Stop(timeout time.Duration) error

	// Kill ends the worker by force, waits until the card has let go of the
	// slot's state, and tells for the log how it ended.
	Kill() string
}

// ErrTimeout: no completion came in time. It may still come: receive again.
var ErrTimeout = errors.New("no completion in time")

// Config describes a slot to New. All fields but Patience and Life are needed.
type Config struct {
	Name   string       // for errors
	Logger hclog.Logger // of the driver

	Timeout      time.Duration // of a command that brings none of its own
	CancelGrace  time.Duration // for a canceled command to end
	AdminTimeout time.Duration // of everything that is not a command

	// Patience is how long to go on trying to bring a worker back while a
	// guest waits. Zero: 1.5 s. A card that can be away for longer and come
	// back, such as a daemon that is restarted, wants more.
	Patience time.Duration

	// Life numbers the life of the card that the newest worker is of. A card may be
	// a process that is killed or restarted, and takes its workers with it; what
	// a command then loses is not its fault. Nil: the card lives as long as the
	// driver. It is called by the one who calls Start.
	Life func() uint64

	Start   func() (Worker, error) // starts another worker and greets it
	Release func(*Slot)            // the slot was closed; it must not call the slot
}

func (c *Config) timeoutOf(d time.Duration) time.Duration {
	if d <= 0 {
		return c.Timeout
	}
	return d
}

func (c *Config) patience() time.Duration {
	if c.Patience <= 0 {
		return defaultPatience
	}
	return c.Patience
}

func (c *Config) life() uint64 {
	if c.Life == nil {
		return 0
	}
	return c.Life()
}

// Call sends a submission and waits for its completion.
func Call(w Worker, sub *abi.Submission, timeout time.Duration) (abi.Completion, error) {
	if err := w.Send(sub); err != nil {
		return abi.Completion{}, fmt.Errorf("send: %w", err)
	}
	return w.Receive(sub, timeout)
}

// Greet identifies both sides to each other. The error carries the sentinel
// for what the card found wrong with the slot's state.
func Greet(w Worker, name string, timeout time.Duration) (abi.Identity, error) {
	hello := abi.AppendHello(nil, abi.Hello{Min: abi.MinVersion, Max: abi.Version})
	c, err := Call(w, &abi.Submission{Op: abi.OpIdentify, Payload: hello}, timeout)
	if err != nil {
		return abi.Identity{}, fmt.Errorf("greet engine: %w", err)
	}
	if c.Status != abi.StatusOK {
		return abi.Identity{}, &coproc.Error{Op: "identify", Slot: name, Status: c.Status,
			Err: fmt.Errorf("%w: %q", coproc.StatusError(c.Status), c.Payload)}
	}
	id, err := abi.ParseIdentity(c.Payload)
	if err != nil {
		return abi.Identity{}, err
	}
	if id.Version != abi.Version || id.MaxPayload < coproc.MaxTransfer || id.Slots != 1 {
		return abi.Identity{}, fmt.Errorf("engine offers version %d, %d slots, %d bytes: %w",
			id.Version, id.Slots, id.MaxPayload, coproc.ErrUnsupported)
	}
	return id, nil
}

// OpError wraps err for the caller unless it is wrapped already. It gives nil
// for nil.
func OpError(op, slot string, err error) error {
	if err == nil {
		return nil
	}
	e := &coproc.Error{Op: op, Slot: slot, Err: err}
	if inner, ok := errors.AsType[*coproc.Error](err); ok {
		e.Status = inner.Status
		if err == error(inner) { // or else what is around it would be lost
			e.Err = inner.Err
		}
	}
	return e
}

func (s *Slot) opError(op string, err error) error { return OpError(op, s.cfg.Name, err) }
