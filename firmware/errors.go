// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/pcrmap"
	"hwvtpm/firmware/provision"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// Causes that have their own status on the mailbox.
var (
	errInUse   = errors.New("state directory is in use by another process")
	errCorrupt = errors.New("state is corrupt")
	errForeign = errors.New("state belongs to another slot")
	errFailed  = errors.New("slot failed until reset or a new run")
	errOrder   = errors.New("request out of order")
	errSeq     = errors.New("stale sequence number")
	errNoSlot  = errors.New("no such slot")

	errHostPCR = errors.New("before TPM2_Startup it would set PCR 0, which is the host's")

	errOtherBoot = errors.New("volatile file is from before the machine's last boot")

	errBadOpcode  = errors.New("unknown opcode")
	errBadVersion = errors.New("no common version")
)

// statusOf maps an error to the status that the driver sees.
func statusOf(err error) abi.Status {
	switch {
	case err == nil:
		return abi.StatusOK
	case errors.Is(err, errInUse), errors.Is(err, errRuns):
		return abi.StatusInUse
	case errors.Is(err, errCorrupt), errors.Is(err, sealed.ErrDamaged), errors.Is(err, sealed.ErrVersion):
		return abi.StatusCorrupt
	case errors.Is(err, errForeign), errors.Is(err, sealed.ErrForeign):
		return abi.StatusForeign
	case errors.Is(err, sealed.ErrWrongKey):
		return abi.StatusWrongKey
	case errors.Is(err, sealed.ErrRollback):
		return abi.StatusRollback
	case errors.Is(err, errNotWritten):
		return abi.StatusStorage
	case errors.Is(err, errFailed):
		return abi.StatusFailed
	case errors.Is(err, errOrder):
		return abi.StatusOrder
	case errors.Is(err, errSeq):
		return abi.StatusSequence
	case errors.Is(err, errNoSlot):
		return abi.StatusNoSlot
	case errors.Is(err, errBadOpcode):
		return abi.StatusBadOpcode
	case errors.Is(err, provision.ErrFull):
		return abi.StatusFull
	case errors.Is(err, pcrmap.ErrRefused), errors.Is(err, errHostPCR):
		return abi.StatusUnsupported
	case errors.Is(err, errBadVersion):
		return abi.StatusBadVersion
	case errors.Is(err, abi.ErrMalformed), errors.Is(err, wire.ErrMalformed):
		return abi.StatusBadField
	}
	return abi.StatusInternal
}
