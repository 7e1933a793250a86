// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/metrics"
	"hwvtpm/vtpm/hostdoor"
)

// Modes of --host-pcrs: see docs/host-pcrs.md.
const (
	hostMap      = "map"
	hostEvidence = "evidence"
	hostOff      = "off"
)

// setHost checks --host-pcrs and --hostd. Without a choice a machine on the virtio
// device, which has no firmware that measures, has its host's PCRs, and one behind
// QEMU's TPM devices, which may have one, keeps its own.
func (c *config) setHost() error {
	switch c.hostPCRs {
	case "":
		c.hostPCRs = hostMap
		if c.emulator {
			c.hostPCRs = hostEvidence
		}
		if c.hostd == "" {
			c.hostPCRs = hostOff
		}
	case hostOff:
	case hostMap, hostEvidence:
		if c.hostd == "" {
			return fmt.Errorf("--host-pcrs=%s needs --hostd SOCKET: the host's daemon reads the host's TPM", c.hostPCRs)
		}
	default:
		return fmt.Errorf("--host-pcrs %q is not map, evidence or off", c.hostPCRs)
	}
	return nil
}

// host is what the machine's TPM shows of its host.
type host struct {
	mode   string
	daemon hostdoor.Client
	log    hclog.Logger

	told, refused atomic.Uint64
}

func newHost(cfg config, log hclog.Logger) *host {
	h := &host{mode: cfg.hostPCRs, daemon: hostdoor.Client{Socket: cfg.hostd}, log: log.Named("host")}
	switch {
	case h.mode == hostOff && cfg.hostd == "":
		h.log.Info("PCR 0-7 are the virtual machine's own and say nothing of its host: no --hostd is given")
	case h.mode == hostOff:
		h.log.Info("PCR 0-7 are the virtual machine's own and say nothing of its host, as asked for")
	}
	return h
}

// with gives a slot whose TPM shows what the mode wants.
func (h *host) with(slot coproc.Slot, name string) (coproc.Slot, error) {
	switch h.mode {
	case hostMap:
		return coproc.WithHostPCRs(slot, h.daemon.PCRs, h.note)
	case hostEvidence:
		return coproc.WithBootEvidence(slot, func(ctx context.Context, run coproc.RunID) ([]byte, error) {
			return h.daemon.BootEvidence(ctx, name, run)
		}, h.note)
	}
	return slot, nil
}

// open opens a slot of a card, with what the mode wants.
func (h *host) open(ctx context.Context, card coproc.Device, name string) (coproc.Slot, error) {
	slot, err := card.OpenSlot(ctx, name)
	if err != nil {
		return nil, err
	}
	with, err := h.with(slot, name)
	if err != nil {
		return nil, errors.Join(err, slot.Close())
	}
	return with, nil
}

// note logs and counts how a question to the host ended. There is one for each start of
// the TPM, so a guest cannot fill the log.
func (h *host) note(err error) {
	if err == nil {
		h.told.Add(1)
		h.log.Info("the TPM shows how its host has started", "mode", h.mode)
		return
	}
	h.refused.Add(1)
	if h.mode == hostMap {
		h.log.Error("PCR 0-7 cannot be the host's: the TPM answers TPM_RC_FAILURE until the virtual machine is reset; "+
			"see that vtpm-hostd serves and what it logs, then reset the machine", "hostd", h.daemon.Socket, "error", err)
		return
	}
	h.log.Warn("the TPM has no evidence of its host's boot until the virtual machine is reset; "+
		"see that vtpm-hostd serves and what it logs", "hostd", h.daemon.Socket, "error", err)
}

// WriteMetrics writes the mode and how often the host was asked.
func (h *host) WriteMetrics(w *metrics.Writer) {
	mode := w.Gauge("hwvtpm_host_pcrs_mode", "1 for what the TPM shows of its host, 0 for all others.")
	for _, m := range []string{hostMap, hostEvidence, hostOff} {
		v := 0.0
		if m == h.mode {
			v = 1
		}
		mode.Sample(v, metrics.Label{Name: "mode", Value: m})
	}
	asked := w.Counter("hwvtpm_host_questions_total", "Starts of the TPM for which the host was asked, by what came of it.")
	asked.Count(h.told.Load(), metrics.Label{Name: "result", Value: "success"})
	asked.Count(h.refused.Load(), metrics.Label{Name: "result", Value: "refused"})
}
