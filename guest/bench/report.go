// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
	"time"

	"hwvtpm/guest/workload"
)

// Report is all that one run measured. Parts that were left out are nil.
type Report struct {
	Date        string        `json:"date"`
	Command     string        `json:"command"` // what makes such a report
	Quick       bool          `json:"quick"`   // a smoke run: figures are worth little
	Plan        Plan          `json:"plan"`
	Machine     Machine       `json:"machine"`
	Guest       *GuestReport  `json:"guest,omitempty"`
	Host        []HostRow     `json:"host,omitempty"`
	Stages      []Stages      `json:"stages,omitempty"`
	Starts      []StartRow    `json:"starts,omitempty"`
	Memory      *MemoryReport `json:"memory,omitempty"`
	NV          *NVReport     `json:"nv,omitempty"`
	Card        *CardReport   `json:"card,omitempty"`
	Attest      *AttestReport `json:"attest,omitempty"`
	Allocations []AllocRow    `json:"allocations,omitempty"`
	Verdicts    []Verdict     `json:"verdicts,omitempty"`
}

// Stages is where the time of one short command in the guest goes. Each stage
// is the difference of two medians that were measured at different places, so
// it is an estimate, and may even be below zero on a noisy machine.
type Stages struct {
	Placement string        `json:"placement"`
	Command   string        `json:"command"`
	Guest     time.Duration `json:"guest_ns"`    // system calls, TPM core, driver, QEMU: in the guest, minus kick to call
	Ring      time.Duration `json:"ring_ns"`     // kick to call, minus the slot's round trip
	Channel   time.Duration `json:"channel_ns"`  // the slot's round trip, minus the engine
	Engine    time.Duration `json:"engine_ns"`   // libtpms called in a loop
	Total     time.Duration `json:"total_ns"`    // in the guest, split ring
	InPlace   time.Duration `json:"in_place_ns"` // processor time of backend and engine while the guest was measured
}

// hostRow finds a row of the host part.
func (r *Report) hostRow(placement, command string) (HostRow, bool) {
	for _, row := range r.Host {
		if row.Placement == placement && row.Command == command {
			return row, true
		}
	}
	return HostRow{}, false
}

// deriveStages needs the guest and the host part. It takes the last placement,
// in which nothing depends on the scheduler's mood. Only short commands have
// stages: for others our engine's libcrypto may go another way than plain libtpms.
func (r *Report) deriveStages() {
	if r.Guest == nil || len(r.Guest.Rows) == 0 {
		return
	}
	place := r.Guest.Rows[len(r.Guest.Rows)-1].Placement
	for _, g := range r.Guest.Rows {
		h, ok := r.hostRow(place, g.Command)
		free, okFree := r.hostRow("free", g.Command)
		if g.Placement != place || !ok || !okFree || !slices.Contains(shortCommands, g.Command) {
			continue
		}
		r.Stages = append(r.Stages, Stages{
			Placement: place,
			Command:   g.Command,
			Guest:     g.Split.P50 - h.Ring.P50,
			Ring:      h.Ring.P50 - h.Slot.P50,
			Channel:   h.Slot.P50 - free.Engine.P50,
			Engine:    free.Engine.P50,
			Total:     g.Split.P50,
			InPlace:   g.BackendCPU + g.EngineCPU,
		})
	}
}

// largest names the stage that costs most.
func (s Stages) largest() (string, time.Duration) {
	name, most := "the guest's kernel and QEMU", s.Guest
	for _, c := range []struct {
		name string
		d    time.Duration
	}{
		{"the ring (kick, call)", s.Ring},
		{"the channel to the engine process", s.Channel},
		{"libtpms itself", s.Engine},
	} {
		if c.d > most {
			name, most = c.name, c.d
		}
	}
	return name, most
}

func (r *Report) stagesOf(command string) (Stages, bool) {
	for _, s := range r.Stages {
		if s.Command == command {
			return s, true
		}
	}
	return Stages{}, false
}

// label is how a command is called in the report.
func label(command string) string {
	if name, ok := commandNames[command]; ok {
		return name
	}
	return command
}

// inGuestTargets are the commands that have a target in the guest.
var inGuestTargets = []string{workload.GetRandom, workload.PCRRead, workload.PCRExtend, workload.SignECDSA}
