// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"

	"hwvtpm/coproc"
)

// PCRs gives the host's PCR 0-7 as they are to be mapped into a machine's TPM, from a
// reading that is at most Config.PCRAge old, or that all who ask meanwhile share.
// Errors are those of hostpcr.
func (m *Manager) PCRs(ctx context.Context) (coproc.PCRMap, error) {
	r, err := m.quoter.recent(ctx, m.cfg.PCRAge)
	var values coproc.PCRMap
	if err == nil {
		values, err = r.Map()
	}
	if ctx.Err() == nil {
		m.setProblem(problemPCRs, err)
	}
	return values, err
}
