// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/metrics"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/emulator"
)

// emulatorFace serves QEMU's own TPM devices.
type emulatorFace struct {
	cfg    config
	log    hclog.Logger
	server *emulator.Server
}

func newEmulator(cfg config, slot coproc.Slot, log hclog.Logger) (*emulatorFace, error) {
	e := &emulatorFace{cfg: cfg, log: log}
	var err error
	e.server, err = emulator.NewServer(emulator.Config{
		Slot:         slot,
		OnConnect:    e.connected,
		OnDisconnect: e.disconnected,
		Logger:       log.Named("tpm-emulator"),
	})
	return e, err
}

func (e *emulatorFace) serve(ctx context.Context, end endpoint) error {
	e.log.Info("ready", "version", cli.Version(), "face", "tpm-emulator")
	err := e.server.Serve(ctx, end.listener)
	s := e.server.Stats()
	e.log.Info("stopping", "commands", s.Commands, "tpm-errors", s.Errors, "bad-sizes", s.BadSizes,
		"refused-requests", s.Refused, "slot-errors", s.SlotErrors, "resets", s.Resets, "power-ons", s.PowerOns)
	return err
}

// connected names the run of a new connection. An unknown one needs no warning:
// QEMU says itself when a power-on is due.
func (e *emulatorFace) connected(p emulator.Peer) coproc.RunID {
	e.log.Info("a virtual machine has connected", "pid", p.PID)
	cli.Tell(e.log, "STATUS=serving a virtual machine")
	run, _ := runOf(e.cfg, p.PID)
	return run
}

func (e *emulatorFace) disconnected(err error) {
	if err != nil {
		e.log.Warn("the virtual machine's connection ended", "error", err)
	} else {
		e.log.Info("the virtual machine has disconnected")
	}
	cli.Tell(e.log, "STATUS=waiting for a virtual machine")
}

// WriteMetrics implements counted.
func (e *emulatorFace) WriteMetrics(w *metrics.Writer) { e.server.WriteMetrics(w) }
