// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
)

const (
	// EventLog is where Linux has the firmware's event log, if the firmware left one.
	EventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"
	// MaxLog is what fits a request, in bytes; logs of real machines have 20 to 100 KiB.
	MaxLog = 1 << 20
)

// ReadLog reads an event log. Where there is none it gives an error of fs.ErrNotExist.
func ReadLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	log, err := io.ReadAll(io.LimitReader(f, MaxLog+1)) // securityfs tells no size
	switch {
	case err != nil:
		return nil, err
	case len(log) > MaxLog:
		return nil, fmt.Errorf("%s: more than %d bytes", path, MaxLog)
	}
	return log, nil
}

// ReadFirmwareLog reads EventLog; a machine whose firmware measures nothing has none.
func ReadFirmwareLog() ([]byte, error) {
	log, err := ReadLog(EventLog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return log, err
}

// Machine is the machine's part of the evidence for a nonce: a quote by the AIK, the
// values that are quoted, and an event log, if log has one. Errors: ErrNotEnrolled,
// ErrSelection, attest.ErrNonce.
func (a *Attester) Machine(ctx context.Context, nonce []byte, s Selection, log []byte) (*attest.Machine, error) {
	if err := attest.CheckNonce(nonce); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	id, err := a.Identity()
	if err != nil {
		return nil, err
	}
	layer, err := a.quote(ctx, nonce, s)
	if err != nil {
		return nil, err
	}
	layer.Log = log
	return &attest.Machine{Chain: id.text, Layer: *layer}, nil
}

// Complete has the host add what it knows to a machine's part. The mode may be
// empty: the host then says what PCR 0-7 are. Evidence that is not about this
// quote is ErrAnswer; whether it holds is for the verifier, who has the roots.
func Complete(ctx context.Context, host Door, m *attest.Machine, nonce []byte, mode attest.Mode) (*attest.Evidence, error) {
	part, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("attester: %w", err)
	}
	var text json.RawMessage
	err = host.Call(ctx, door.OpEvidence, door.EvidenceRequest{Nonce: nonce, PCRMap: string(mode), VM: part}, &text)
	if err != nil {
		return nil, err
	}
	ev, err := attest.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if !bytes.Equal(ev.VM.Quote.Attest, m.Quote.Attest) {
		return nil, fmt.Errorf("%w: the evidence is for another quote", ErrAnswer)
	}
	return ev, nil
}
