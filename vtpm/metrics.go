// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"hwvtpm/coproc/abi/tpmcmd"
	"hwvtpm/coproc/metrics"
)

// WriteMetrics writes what the device has counted, which docs/operations.md
// explains. It may be called from any goroutine and disturbs nobody. The slot is
// not asked anything: a question would wake it if it is parked.
func (d *Device) WriteMetrics(w *metrics.Writer) {
	d.writeCommands(w)
	d.writeState(w)
	s := d.Stats()
	for _, c := range []struct {
		name, help string
		value      uint64
	}{
		{"hwvtpm_bad_requests_total", "Requests that had no room for a response or no command.", s.BadChains},
		{"hwvtpm_slot_errors_total", "Commands that the coprocessor failed to serve.", s.SlotErrors},
		{"hwvtpm_cancels_total", "Cancellations asked for by the guest or its front-end.", s.Cancels},
		{"hwvtpm_power_ons_total", "Runs of a virtual machine that began or were continued.", s.PowerOns},
		{"hwvtpm_resets_total", "Resets of the TPM because the virtual machine was reset.", s.Resets},
		{"hwvtpm_blind_starts_total", "Starts of the queue without word from QEMU's monitor.", s.BlindStarts},
	} {
		w.Counter(c.name, c.help).Count(c.value)
	}
}

func (d *Device) writeCommands(w *metrics.Writer) {
	f := w.Latencies("hwvtpm_command_duration_seconds", "Time to answer a TPM command, by what it is about.")
	for c := range tpmcmd.Class(tpmcmd.Classes) {
		o := &d.observer.duration[c]
		var counts [tpmcmd.Buckets]uint64
		for i := range counts {
			counts[i] = o.counts[i].Load()
		}
		f.Latency(&counts, o.sum.Load(), metrics.Label{Name: "class", Value: c.String()})
	}
	f = w.Counter("hwvtpm_commands_total", "TPM commands answered, by what they are about and the kind of response code.")
	for c := range tpmcmd.Class(tpmcmd.Classes) {
		for r := range tpmcmd.Result(tpmcmd.Results) {
			f.Count(d.observer.results[c][r].Load(),
				metrics.Label{Name: "class", Value: c.String()}, metrics.Label{Name: "result", Value: r.String()})
		}
	}
	w.Gauge("hwvtpm_commands_pending", "TPM commands being answered now.").Sample(float64(d.observer.pending.Load()))
}

// States of the TPM as the device sees it.
const (
	tpmOff          = "off"
	tpmResetPending = "reset_pending"
	tpmFailing      = "failing"
	tpmRunning      = "running"
)

func (d *Device) tpmState() string {
	switch {
	case !d.powered.Load():
		return tpmOff
	case d.quiet.Load():
		return tpmFailing
	case d.resetPending.Load():
		return tpmResetPending
	}
	return tpmRunning
}

func (d *Device) writeState(w *metrics.Writer) {
	f := w.Gauge("hwvtpm_tpm_state", "1 for the state that the TPM is in, 0 for all others.")
	now := d.tpmState()
	for _, s := range []string{tpmOff, tpmRunning, tpmResetPending, tpmFailing} {
		v := 0.0
		if s == now {
			v = 1
		}
		f.Sample(v, metrics.Label{Name: "state", Value: s})
	}
}
