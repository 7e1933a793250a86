// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/guest/workload"
)

// shortCommands are those whose time is the way to the engine and back, and
// not the engine's.
var shortCommands = []string{workload.GetRandom, workload.PCRRead, workload.PCRExtend}

// commandNames is how the report calls the workload's commands.
var commandNames = map[string]string{
	workload.GetRandom:  "GetRandom(32)",
	workload.PCRRead:    "PCR_Read",
	workload.PCRExtend:  "PCR_Extend",
	workload.SignECDSA:  "Sign, ECDSA P-256",
	workload.SignRSA:    "Sign, RSA-2048",
	workload.QuoteECDSA: "Quote, ECDSA P-256",
}

// startup starts a TPM that was just powered on.
func startup(t transport.TPM) error {
	_, err := tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(t)
	return err
}

// scripts makes those of all commands on t, and leaves nothing there. They hold
// for any TPM without transient objects.
func scripts(t transport.TPM) ([]workload.Script, error) {
	var all []workload.Script
	for _, name := range workload.Commands {
		s, err := workload.New(t, name)
		if err != nil {
			return nil, err
		}
		if err := workload.SendAll(t, s.Cleanup); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}
