// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/provision"
)

// keepEvidence keeps evidence of the host's boot for the run. It is shown with the
// guest's next TPM2_Startup(CLEAR): see startHosted.
func (s *slot) keepEvidence(evidence []byte) error {
	switch {
	case s.phase == abi.SlotOff:
		return fmt.Errorf("boot evidence before power-on: %w", errOrder)
	case s.phase == abi.SlotFailed:
		return errFailed
	case bytes.Equal(s.state.evidence, evidence):
		return nil
	case s.flags&(flagPristine|flagLoaded) == 0:
		return fmt.Errorf("the guest runs already: %w", errOrder)
	}
	next := s.state
	next.evidence = bytes.Clone(evidence)
	at := moment{seq: s.seq, resp: bytes.Clone(s.response), run: s.state.run, flags: s.flags}
	err := s.writeState(&next, &at)
	if err == nil || errors.Is(err, errNotWritten) {
		return err
	}
	s.fail("boot evidence could not be kept", err)
	return errFailed
}

// startsClear tells whether a command is TPM2_Startup(TPM_SU_CLEAR), Part 3, 9.3.
func startsClear(cmd []byte) bool {
	return commandCode(cmd) == ccStartup && len(cmd) == tpmHeaderSize+2 && cmd[tpmHeaderSize] == 0 && cmd[tpmHeaderSize+1] == 0
}

// startHosted finishes a TPM2_Startup of a TPM that shows something of its host. The
// NV index gets the run's evidence if the TPM starts clear, and the PCRs of a map take
// their values; only then is the command on record, so a crash undoes or keeps all of
// it. If the PCRs cannot take their values, the slot fails, since a guest that saw
// others could attest to them. A guest that fills its NV has no evidence to show, and
// starts all the same.
func (s *slot) startHosted(m *moment, clear bool, resp []byte) (int, error) {
	flags := s.state.flags
	if clear {
		var err error
		if flags, err = s.showEvidence(); err != nil {
			return 0, err
		}
	}
	s.stored = s.tpm.Stored(s.stored[:0])
	if s.state.mapped() {
		if err := s.startMapped(); err != nil {
			return 0, err
		}
	}
	return s.saveStored(m, flags, resp)
}

// hosted tells whether startHosted has something to do.
func (s *slot) hosted(clear bool) bool {
	return s.state.mapped() || clear && (len(s.state.evidence) > 0 || s.state.flags&stateFlagEvidence != 0)
}

// showEvidence puts the run's evidence into its NV index, or takes that of an earlier
// run away, and gives the flags of the state with that. An error is the engine's.
func (s *slot) showEvidence() (flags uint32, err error) {
	shown, hidden := s.state.flags|stateFlagEvidence, s.state.flags&^stateFlagEvidence
	if len(s.state.evidence) > 0 {
		err := provision.ShowEvidence(s.tpm, s.state.evidence)
		if err == nil {
			return shown, nil
		}
		if _, refused := errors.AsType[*provision.Error](err); !refused {
			return 0, err
		}
		s.stats.Unshown++
		s.log.warn("the TPM has no place for the evidence of the host's boot: the guest starts without", "err", err)
	}
	err = provision.HideEvidence(s.tpm)
	if err == nil {
		return hidden, nil
	}
	if _, refused := errors.AsType[*provision.Error](err); !refused {
		return 0, err
	}
	s.log.warn("evidence of an earlier boot stays in the TPM", "err", err)
	return shown, nil
}

// keepEvidence answers OpBootEvidence.
func (s *server) keepEvidence(payload []byte) error {
	if err := abi.CheckBootEvidence(payload); err != nil {
		return err
	}
	return s.slot.keepEvidence(payload)
}
