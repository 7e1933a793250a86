// SPDX-License-Identifier: Apache-2.0

package hostdoor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/metrics"
)

// Mode is what a machine's TPM shows of its host: see docs/host-pcrs.md.
type Mode string

// Modes.
const (
	ModeMap      Mode = "map"      // PCR 0-7 are the host's
	ModeEvidence Mode = "evidence" // the host's PCR 0-7 are in an NV index
	ModeOff      Mode = "off"      // nothing
)

// ChooseMode reads an operator's choice, which may be empty. socket is the daemon's, or
// empty. Without a choice a machine on the virtio device, which has no firmware that
// measures, has its host's PCRs, and one behind QEMU's TPM devices (emulator), which may
// have one, keeps its own.
func ChooseMode(choice, socket string, emulator bool) (Mode, error) {
	m := Mode(choice)
	switch {
	case m == ModeOff, m == "" && socket == "":
		return ModeOff, nil
	case m == "" && emulator:
		return ModeEvidence, nil
	case m == "":
		return ModeMap, nil
	case m != ModeMap && m != ModeEvidence:
		return "", fmt.Errorf("%q is not map, evidence or off", choice)
	case socket == "":
		return "", fmt.Errorf("%s needs the socket of vtpm-hostd, which reads the host's TPM", m)
	}
	return m, nil
}

// Host is what a machine's TPM shows of its host. Its methods may be called from any
// goroutine.
type Host struct {
	mode   Mode
	daemon Client
	log    hclog.Logger

	told, refused atomic.Uint64
}

// NewHost gives a Host that asks the daemon at a socket, and logs how each question
// ended; nil: nothing is logged.
func NewHost(mode Mode, socket string, log hclog.Logger) *Host {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	return &Host{mode: mode, daemon: Client{Socket: socket}, log: log}
}

// With gives a slot of this name whose TPM shows what the mode wants.
func (h *Host) With(slot coproc.Slot, name string) (coproc.Slot, error) {
	switch h.mode {
	case ModeMap:
		return coproc.WithHostPCRs(slot, h.daemon.PCRs, h.note)
	case ModeEvidence:
		return coproc.WithBootEvidence(slot, func(ctx context.Context, run coproc.RunID) ([]byte, error) {
			return h.daemon.BootEvidence(ctx, name, run)
		}, h.note)
	}
	return slot, nil
}

// Open opens a slot of a card, as With.
func (h *Host) Open(ctx context.Context, card coproc.Device, name string) (coproc.Slot, error) {
	slot, err := card.OpenSlot(ctx, name)
	if err != nil {
		return nil, err
	}
	with, err := h.With(slot, name)
	if err != nil {
		return nil, errors.Join(err, slot.Close())
	}
	return with, nil
}

// note logs and counts how a question to the host ended. There is one for each start of
// the TPM, so a guest cannot fill the log.
func (h *Host) note(err error) {
	if err == nil {
		h.told.Add(1)
		h.log.Info("the TPM shows how its host has started", "mode", string(h.mode))
		return
	}
	h.refused.Add(1)
	if h.mode == ModeMap {
		h.log.Error("PCR 0-7 cannot be the host's: the TPM answers TPM_RC_FAILURE until the virtual machine is reset; "+
			"see that vtpm-hostd serves and what it logs, then reset the machine", "hostd", h.daemon.Socket, "error", err)
		return
	}
	h.log.Warn("the TPM has no new evidence of its host's boot until the virtual machine is reset; "+
		"see that vtpm-hostd serves and what it logs", "hostd", h.daemon.Socket, "error", err)
}

// WriteMetrics writes the mode and how often the host was asked.
func (h *Host) WriteMetrics(w *metrics.Writer) {
	mode := w.Gauge("hwvtpm_host_pcrs_mode", "1 for what the TPM shows of its host, 0 for all others.")
	for _, m := range []Mode{ModeMap, ModeEvidence, ModeOff} {
		v := 0.0
		if m == h.mode {
			v = 1
		}
		mode.Sample(v, metrics.Label{Name: "mode", Value: string(m)})
	}
	asked := w.Counter("hwvtpm_host_questions_total", "Starts of the TPM for which the host was asked, by what came of it.")
	asked.Count(h.told.Load(), metrics.Label{Name: "result", Value: "success"})
	asked.Count(h.refused.Load(), metrics.Label{Name: "result", Value: "refused"})
}
