// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"fmt"
	"os"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// Conn carries admin commands to a card, one at a time.
type Conn interface {
	// Command executes sub and gives the payload of its completion, which
	// is the caller's. Files are those that came along, and the caller's
	// too; without an error from the card there are none. A status that is
	// not OK is an error as Refusal makes it.
	Command(ctx context.Context, sub *abi.Submission) (payload []byte, files []*os.File, err error)
}

// Refusal gives the error for a completion: nil for StatusOK.
func Refusal(op abi.Opcode, status abi.Status, payload []byte) error {
	if status == abi.StatusOK {
		return nil
	}
	err := coproc.StatusError(status)
	if text := abi.Text(payload); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return &coproc.Error{Op: opName(op), Status: status, Err: err}
}

var opNames = map[abi.Opcode]string{
	abi.OpCardIdentify:  "identify card",
	abi.OpSlotCreate:    "create",
	abi.OpSlotList:      "list slots",
	abi.OpSlotShow:      "show",
	abi.OpSlotChallenge: "challenge",
	abi.OpSlotOpen:      "open",
	abi.OpSlotPark:      "park",
	abi.OpSlotDestroy:   "destroy",
	abi.OpSlotImport:    "import",
	abi.OpSlotClone:     "clone",
	abi.OpSlotAdopt:     "adopt",
	abi.OpSlotRestore:   "permit restore",
	abi.OpSlotLock:      "lock",
	abi.OpSlotUnlock:    "unlock",
	abi.OpStatement:     "statement",
	abi.OpCardCounters:  "counters",
	abi.OpCardHealth:    "health",
	abi.OpCardKey:       "card key",
	abi.OpCardCertify:   "certify card",
	abi.OpSlotCertify:   "certify",
	abi.OpEKCertificate: "EK certificate",
}

func opName(op abi.Opcode) string {
	if name, ok := opNames[op]; ok {
		return name
	}
	return fmt.Sprintf("command %#x", uint8(op))
}
