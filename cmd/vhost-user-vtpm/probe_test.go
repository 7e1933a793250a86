// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"hwvtpm/internal/cli"
	"hwvtpm/vhostuser/vhostusertest"
)

// A process that connects and says nothing is no virtual machine: here it is a
// second backend that looks whether somebody serves the socket, while the
// machine's device is unplugged. PCRs must outlive that.
func TestProbeIsNoPowerOn(t *testing.T) {
	p := start(t, stateDir(t), "--reset-policy=keep")
	g := connect(t, p, vhostusertest.Options{Features: 7})
	was := g.boot()
	g.f.Close()

	second := launch(t, stateDir(t), "--reset-policy=keep", "--socket-path", p.socket)
	if code := second.wait(); code != cli.ExitFailure || !strings.Contains(second.log.String(), "another process serves") {
		t.Fatalf("a second backend on the same socket ended with %d:\n%s", code, second.log)
	}

	g = connect(t, p, vhostusertest.Options{Features: 7})
	if got := g.pcr10(); got != was {
		t.Errorf("PCR 10 after a probe = %x, want %x", got, was)
	}
}
