// SPDX-License-Identifier: Apache-2.0

package pcrmap

import (
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

// TPM is what the package needs of one: see package engine.
type TPM interface {
	Load(perm, vol []byte) error
	Process(locality uint8, cmd, resp []byte) (n int, stored bool, err error)
	Volatile(dst []byte) (int, error)
}

// maxResponse is the room that Process wants.
const maxResponse = abi.MaxPayload

// Apply gives a TPM that was started, and whose permanent state is perm, the PCRs
// of a map; in banks that the map does not have, abi.UnmappedPCR. What the TPM
// stores meanwhile is of no account: perm still goes with what it is now.
//
// If the error is ErrRefused or ErrNotStarted, the TPM is as it was. After any
// other error it is not to be used.
func Apply(t TPM, perm []byte, m *abi.PCRMap) error {
	buf := make([]byte, maxState)
	defer clear(buf)
	n, err := t.Volatile(buf)
	if err != nil {
		return fmt.Errorf("map PCRs: %w", err)
	}
	vol := buf[:n]
	if err = replace(t, perm, vol, m); err == nil {
		return nil
	}
	if back := t.Load(perm, vol); back != nil {
		// %v of the cause: it must not be taken for a refusal that left all well.
		return fmt.Errorf("map PCRs: %v; and the state before could not be restored: %w", err, back)
	}
	if !errors.Is(err, ErrNotStarted) && !errors.Is(err, ErrRefused) {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return fmt.Errorf("map PCRs: %w", err)
}

// replace takes the TPM from one volatile state to that with the map. With an error
// it is in either of the two.
func replace(t TPM, perm, vol []byte, m *abi.PCRMap) error {
	resp := make([]byte, maxResponse)
	before, err := read(t, resp)
	if err != nil {
		return err
	}
	old, err := parse(vol)
	if err != nil {
		return err
	}
	if err := before.matches(old); err != nil {
		return err
	}
	next := old.rewrite(m)
	defer clear(next.blob)
	if _, err := parse(next.blob); err != nil {
		return err // values that look like something else
	}
	if err := t.Load(perm, next.blob); err != nil {
		return err
	}
	after, err := read(t, resp)
	if err != nil {
		return err
	}
	if err := after.matches(next); err != nil {
		return err
	}
	if after.used != before.used {
		return refuse("the TPM has other banks than before")
	}
	return t.Load(perm, next.blob)
}
