// SPDX-License-Identifier: Apache-2.0

package emulator

import "hwvtpm/coproc/metrics"

// WriteMetrics writes what the server has counted, which docs/operations.md
// explains. It may be called from any goroutine and disturbs nobody.
func (s *Server) WriteMetrics(w *metrics.Writer) {
	c := s.Stats()
	for _, m := range []struct {
		name, help string
		value      uint64
	}{
		{"hwvtpm_emulator_commands_total", "Messages on the data channel.", c.Commands},
		{"hwvtpm_emulator_tpm_errors_total", "Messages answered with a TPM error.", c.Errors},
		{"hwvtpm_emulator_refused_total", "Control requests answered with an error.", c.Refused},
		{"hwvtpm_bad_requests_total", "Messages of a wrong size, which the TPM did not see.", c.BadSizes},
		{"hwvtpm_slot_errors_total", "Commands that the coprocessor failed to serve.", c.SlotErrors},
		{"hwvtpm_cancels_total", "Cancellations asked for by QEMU.", c.Cancels},
		{"hwvtpm_power_ons_total", "Runs of a virtual machine that began.", c.PowerOns},
		{"hwvtpm_resets_total", "Resets of the TPM because the virtual machine was reset.", c.Resets},
	} {
		w.Counter(m.name, m.help).Count(m.value)
	}
}
