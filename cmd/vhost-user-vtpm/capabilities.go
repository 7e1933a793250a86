// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"

	"hwvtpm/internal/cli"
	"hwvtpm/vtpm"
)

// capabilities is what --print-capabilities prints. QEMU's schema
// (docs/interop/vhost-user.json) has type and features; it knows no TPM yet,
// and readers must ignore members that they don't know.
type capabilities struct {
	Type        string   `json:"type"`
	Features    []string `json:"features"`
	Version     string   `json:"version"`
	VirtioID    int      `json:"virtio-id"`
	ConfigSize  int      `json:"config-size"`
	Queues      int      `json:"queues"`
	ResetPolicy []string `json:"reset-policy"`
	Coproc      []string `json:"coproc"`
}

func printCapabilities(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(capabilities{
		Type:        "tpm",
		Features:    []string{"framed", "bufsize", "cancel"},
		Version:     cli.Version(),
		VirtioID:    vtpm.DefaultVirtioID,
		ConfigSize:  vtpm.ConfigSize,
		Queues:      1,
		ResetPolicy: []string{string(vtpm.PolicyQMP), string(vtpm.PolicyKeep), string(vtpm.PolicyReset)},
		Coproc:      []string{"coprocd", "sim"},
	})
}
