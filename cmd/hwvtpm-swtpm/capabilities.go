// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"

	"hwvtpm/internal/cli"
)

// Features are what --print-capabilities says. Programs such as libvirt refuse
// what is not among them, so that a word too many here would be a promise, and
// one too few is a clear message there.
var (
	swtpmFeatures = []string{"tpm-2.0", "flags-opt-startup"}
	setupFeatures = []string{"tpm-2.0", "cmdarg-reconfigure-pcr-banks", "tpm2-rsa-keysize-2048"}
)

func printCapabilities(con *console, program string, features []string) error {
	text, err := json.Marshal(struct {
		Type     string   `json:"type"`
		Features []string `json:"features"`
		Version  string   `json:"version"`
	}{program, features, cli.Version()})
	if err != nil {
		return err
	}
	fmt.Fprintf(con.out, "%s\n", text)
	return errPrinted
}

func printVersion(con *console) error {
	fmt.Fprintf(con.out, "hwvtpm-swtpm %s, with the command line of swtpm 0.7\n", cli.Version())
	return errPrinted
}
