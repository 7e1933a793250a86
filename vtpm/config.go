// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
)

// MaxLocality is the highest locality that a guest may claim. Locality 4
// belongs to the processor's dynamic launch hardware on a real platform, so
// software never gets it (TCG PC Client PTP, section 5.2).
const MaxLocality = 3

// Layout is a way to lay a request out in a chain.
type Layout uint8

// The layouts of docs/virtio-vtpm.md. A device may offer both; the driver then
// chooses by accepting FeatureFramed or not.
const (
	// LayoutPlain: the command, then the response, and nothing else.
	LayoutPlain Layout = 1 << iota
	// LayoutFramed: locality and command, then response and status.
	LayoutFramed
	// LayoutBoth offers FeatureFramed and leaves the choice to the driver.
	LayoutBoth = LayoutPlain | LayoutFramed
)

// ParseLayout reads "plain", "framed" or "both".
func ParseLayout(s string) (Layout, error) {
	switch s {
	case "plain":
		return LayoutPlain, nil
	case "framed":
		return LayoutFramed, nil
	case "both":
		return LayoutBoth, nil
	}
	return 0, fmt.Errorf("layout %q is not plain, framed or both", s)
}

// ResetPolicy says what resets the TPM within a run.
type ResetPolicy string

// Reset policies. PolicyQMP is the only one under which PCRs are both
// trustworthy and right after a reboot.
const (
	// PolicyQMP: the TPM is reset when the monitor says that the virtual
	// machine was reset, and never otherwise.
	PolicyQMP ResetPolicy = "qmp"
	// PolicyKeep: the TPM is never reset within a run. PCRs can't be
	// forged, but after a guest reboot they still hold the first boot's
	// measurements and the second boot's on top.
	PolicyKeep ResetPolicy = "keep"
	// PolicyReset: every start of a fresh ring resets the TPM. A reboot
	// looks right, but a guest's root can start the PCRs over at will by
	// rebinding the driver: measurements prove nothing against it.
	PolicyReset ResetPolicy = "reset"
)

// Config is what a Device needs.
type Config struct {
	// Slot is the TPM. The device does not close it.
	Slot coproc.Slot
	// Policy says what resets the TPM; required, there is no default.
	Policy ResetPolicy
	// Monitor is asked at every ring start; required for PolicyQMP and
	// refused otherwise.
	Monitor Monitor
	// Layouts that are offered; 0 means LayoutBoth.
	Layouts Layout
	// Logger gets one line for each thing that an operator wants to know;
	// nil means none. Nothing is logged per command that went well.
	Logger hclog.Logger
}

// Validate reports the first thing that is wrong with c.
func (c Config) Validate() error {
	if c.Slot == nil {
		return errors.New("vtpm: no slot")
	}
	if c.Layouts&^LayoutBoth != 0 {
		return fmt.Errorf("vtpm: unknown layout bits %#x", c.Layouts)
	}
	switch c.Policy {
	case PolicyQMP:
		if c.Monitor == nil {
			return errors.New("vtpm: reset policy qmp needs a monitor")
		}
	case PolicyKeep, PolicyReset:
		if c.Monitor != nil {
			return fmt.Errorf("vtpm: reset policy %s does not use a monitor", c.Policy)
		}
	default:
		return fmt.Errorf("vtpm: unknown reset policy %q", c.Policy)
	}
	return nil
}
