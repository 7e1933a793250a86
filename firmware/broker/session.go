// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"os"

	"hwvtpm/coproc/abi"
)

// Principal is who a session belongs to.
type Principal struct {
	Admin bool
	Name  string // for the log
}

// Reply is a card's answer to a submission.
type Reply struct {
	Status  abi.Status
	Payload []byte // with an error, text that says why and what to do
	Grant   *Grant // the slot that was opened; nil: none
}

// Grant is an open slot: the client's ends of its channel
// (docs/slot-channel.md). Who gets it closes both.
type Grant struct {
	Number        uint32
	Data, Control *os.File
}

// Session is what a card gives to one client. *card.Session implements it.
type Session interface {
	// Do executes one submission. The reply's payload may be in dst, which
	// has room for abi.MaxPayload bytes; its grant is the caller's.
	Do(ctx context.Context, sub *abi.Submission, dst []byte) Reply

	// Close forgets the client. Slots that it has opened stay open.
	Close()
}
