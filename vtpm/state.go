// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"hwvtpm/coproc"
)

// The device's part of a migration stream (VHOST_USER_SET_DEVICE_STATE_FD),
// little-endian, 40 bytes:
//
//	 0        4        6        8                                40
//	+--------+--------+--------+----------------------------------+
//	| "HVTD" | version| flags  | run                              |
//	+--------+--------+--------+----------------------------------+
//
// flags bit 0: a reset is pending. The TPM's own state is not in it: that
// lives in the slot, leaves only sealed, and moves by other means.
const (
	stateMagic   = "HVTD"
	stateVersion = 1
	stateBytes   = 40
	flagReset    = 1
)

// ErrOtherRun reports a device state of another run than the slot is in: the
// TPM has not moved with the virtual machine.
var ErrOtherRun = errors.New("vtpm: the slot is not in the run that the state belongs to; move the TPM first, or give both ends the same --run-id")

// SaveState writes the device's part of a migration stream.
func (d *Device) SaveState(w io.Writer) error {
	d.mu.Lock()
	b := make([]byte, 0, stateBytes)
	b = append(b, stateMagic...)
	b = binary.LittleEndian.AppendUint16(b, stateVersion)
	var flags uint16
	if d.resetPending.Load() {
		flags |= flagReset
	}
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = append(b, d.run[:]...)
	d.mu.Unlock()
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("vtpm: writing the device state: %w", err)
	}
	return nil
}

// LoadState reads what SaveState wrote. It fails with ErrOtherRun if this
// device's slot is not the TPM that the guest used.
func (d *Device) LoadState(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, stateBytes+1))
	if err != nil {
		return fmt.Errorf("vtpm: reading the device state: %w", err)
	}
	run, flags, err := parseState(b)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.powered.Load() || d.run != run {
		return ErrOtherRun
	}
	if flags&flagReset != 0 {
		d.resetPending.Store(true)
	}
	return nil
}

func parseState(b []byte) (run coproc.RunID, flags uint16, err error) {
	if len(b) != stateBytes || string(b[:4]) != stateMagic {
		return run, 0, errors.New("vtpm: not a device state")
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != stateVersion {
		return run, 0, fmt.Errorf("vtpm: device state of version %d, want %d", v, stateVersion)
	}
	flags = binary.LittleEndian.Uint16(b[6:])
	if flags&^flagReset != 0 {
		return run, 0, fmt.Errorf("vtpm: unknown device state flags %#x", flags)
	}
	copy(run[:], b[8:])
	return run, flags, nil
}
