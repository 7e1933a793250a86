// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/control/controltest"
)

// VM is the machine's name.
const VM = "vm-1"

// Rig is a machine with a vTPM, and its host.
type Rig struct {
	*Host
	TPM *controltest.TPM // past the bus
	Bus *Bus
}

// Bus is the machine's way to its TPM, for several goroutines.
type Bus struct {
	// Before is called with each command, if it is there.
	Before func(cmd tpm2.TPMCC)

	mu  sync.Mutex // held while the TPM works
	tpm transport.TPM
}

// Send implements transport.TPM.
func (b *Bus) Send(cmd []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Before != nil {
		b.Before(tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:])))
	}
	return b.tpm.Send(cmd)
}

// New starts a machine, whose EK's certificate is not yet in NV.
func New(t testing.TB) *Rig {
	t.Helper()
	tpm := controltest.StartSim(t)
	ek := tpm.EK(tpm2.ECCEKTemplate)
	defer tpm.Flush(ek)
	return &Rig{Host: NewHost(t, ek.Public), TPM: tpm, Bus: &Bus{tpm: tpm}}
}
