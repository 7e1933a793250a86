// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/vtpm/hostpcr"
)

// HostPCRs gives what reads and quotes PCR 0-7 of the same TPM with the same key, in
// turn with all else here. Of cfg it takes what is not the TPM and the key. Close it
// before the Host.
func (h *Host) HostPCRs(cfg hostpcr.Config) (*hostpcr.Host, error) {
	cfg.TPM, cfg.AK = nil, hostpcr.AK{Public: h.key.crypto}
	cfg.Turn = func(f func(transport.TPM, hostpcr.AK) error) error {
		return h.do(context.Background(), func(t *lane) error {
			key, err := h.load(t)
			if err != nil {
				return fmt.Errorf("%w: %w", hostpcr.ErrTPM, err)
			}
			return f(t, hostpcr.AK{Handle: key.Handle, Name: key.Name, Auth: key.Auth, Public: h.key.crypto})
		})
	}
	return hostpcr.New(cfg)
}
