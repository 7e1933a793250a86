// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card"
)

// Session is what a card gives to one client. *card.Session implements it.
type Session interface {
	// Do executes one submission. The reply's payload may be in dst, which
	// has room for abi.MaxPayload bytes; its grant is the caller's.
	Do(ctx context.Context, sub *abi.Submission, dst []byte) card.Reply

	// Close forgets the client. Slots that it has opened stay open.
	Close()
}
