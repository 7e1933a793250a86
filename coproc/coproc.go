// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"context"
	"time"

	"hwvtpm/coproc/abi"
)

// MaxTransfer is the largest TPM command and the largest TPM response, in
// bytes. It is libtpms' and PC Client's buffer size.
const MaxTransfer = abi.MaxPayload

// RunID names one run of one virtual machine, from the start of its QEMU
// process to the end. PCRs live as long as a run.
type RunID [abi.RunIDSize]byte

// Device is one card. All methods may be called from any goroutine.
type Device interface {
	// Info describes the card.
	Info(ctx context.Context) (Info, error)

	// OpenSlot gives the named slot. A slot has one owner at a time: a
	// second open before Close fails with ErrInUse, and an unknown name
	// with ErrNotFound.
	OpenSlot(ctx context.Context, name string) (Slot, error)

	// Close closes the open slots and lets go of the card. It is
	// idempotent.
	Close() error
}

// Info describes a card.
type Info struct {
	Driver        string // name of the Go driver: "coprocd", "pcie", "sim"
	ABIVersion    uint16 // mailbox version both sides speak
	EngineVersion uint32 // TPM engine of the card, 0x00MMmmpp
	MaxTransfer   int    // largest TPM command and response, bytes
	Slots         int    // slots on the card
}

// PowerOnResult tells what a power-on found.
type PowerOnResult struct {
	// Resumed is true if the volatile state of the same run was restored
	// exactly. If false the TPM is as after _TPM_Init, and the guest must
	// send TPM2_Startup.
	Resumed bool
}

// Command is one TPM command.
type Command struct {
	// Locality the command comes from, 0 to 4 (TCG Part 1, "Locality").
	Locality uint8

	// Timeout bounds the execution. When it is over the driver cancels the
	// command, and if that does not help it restarts the card's worker.
	// Zero is the driver's default.
	Timeout time.Duration

	// Bytes is the raw command, at most MaxTransfer bytes. Execute does
	// not keep it.
	Bytes []byte
}

// Slot is one TPM 2.0. PowerOn, Reset and Execute run one at a time: calls
// from several goroutines wait for each other. Cancel, Health and Close may
// be called at any time from any goroutine.
type Slot interface {
	// PowerOn starts the TPM for a run. If the slot holds volatile state of
	// this run it is resumed exactly, otherwise the TPM is power cycled.
	// If the state of this run should be there and cannot be trusted, the
	// error is ErrFailed and only Reset or another run brings the slot back.
	PowerOn(ctx context.Context, run RunID) (PowerOnResult, error)

	// Reset is the VM's reset: _TPM_Init inside the run. Volatile state is
	// gone and NV is kept. It does nothing if nothing ran since the last
	// PowerOn or Reset, and it ends the failed state.
	Reset(ctx context.Context) error

	// Execute runs one raw TPM command and writes the raw response to resp,
	// which must have room for MaxTransfer bytes, and returns its length.
	// TPM error codes are responses, not errors. If the slot is failed, the
	// error is ErrFailed and resp nevertheless holds the 10-byte response
	// TPM_RC_FAILURE for the guest. A state-changing command whose response
	// was returned is never lost and never executed twice.
	Execute(ctx context.Context, cmd Command, resp []byte) (int, error)

	// Cancel asks the running command to end early, with TPM_RC_CANCELED.
	// It does nothing if the slot is idle.
	Cancel() error

	// Health reports counters of the slot and of the worker behind it.
	Health(ctx context.Context) (Health, error)

	// Close saves the state and ends the slot. It is idempotent and makes
	// running and later calls fail with ErrClosed.
	Close() error
}

// StateMover is implemented by slots whose state can leave the card: for a
// snapshot of the virtual machine, its managed save, or its migration to another
// process on the machine. All slots of this module's drivers do. Its methods wait
// for the methods of Slot, as these do for each other.
type StateMover interface {
	// SaveState gives the state of the TPM at this moment. The TPM is powered
	// on, and goes on; whatever it does then is not in what was saved.
	SaveState(ctx context.Context) (SavedState, error)

	// LoadState powers the TPM on for a run in the state that it had when s
	// was saved, in place of PowerOn. It demands a run that the slot is not in.
	// ErrRollback: the TPM was used since, so that its secrets, counters and
	// passwords are not those of s any more; only an administrator may go back.
	// A state that was loaded and not used may be loaded again, for any run.
	// On error the slot is as before, or off.
	LoadState(ctx context.Context, run RunID, s SavedState) (PowerOnResult, error)
}

// SavedState is a TPM's state outside of the card. The card has sealed it, for
// itself and for this slot: it may be kept and carried by anybody.
type SavedState struct {
	Permanent []byte // at most abi.MaxStatePermanent bytes
	Volatile  []byte // at most abi.MaxStateVolatile bytes
}

// State is what a slot does now.
type State = abi.SlotState

// Health is a snapshot of a slot's counters.
type Health struct {
	State         State  // off, running or failed
	WorkerPID     int    // process that holds the TPM; 0 if none
	Restarts      uint64 // unplanned worker restarts since the slot was opened
	Commands      uint64 // TPM commands executed by the present worker
	Checkpoints   uint64 // full volatile snapshots by the present worker
	Journaled     uint64 // commands journaled by the present worker
	DurableWrites uint64 // durable state writes by the present worker
	Generation    uint64 // generation of the durable state
	EngineVersion uint32 // 0x00MMmmpp
}
