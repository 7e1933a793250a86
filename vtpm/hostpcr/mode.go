// SPDX-License-Identifier: Apache-2.0

package hostpcr

import "fmt"

// Mode says what a virtual machine gets of its host's PCR 0-7.
type Mode string

// Modes.
const (
	// ModeMap: PCR 0-7 of the virtual machine's TPM are the host's. For machines
	// whose own firmware measures nothing into them, as with the virtio device: a
	// firmware that is refused TPM2_PCR_Extend takes the TPM for broken.
	ModeMap Mode = "map"
	// ModeEvidence: PCR 0-7 are the virtual machine's, and the host's go beside
	// its own in evidence.
	ModeEvidence Mode = "evidence"
	// ModeOff: the host's TPM is not asked.
	ModeOff Mode = "off"
)

// ParseMode reads a Mode.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case ModeMap, ModeEvidence, ModeOff:
		return m, nil
	}
	return "", fmt.Errorf("mode of host PCRs %q is not map, evidence or off", s)
}
