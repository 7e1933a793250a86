// SPDX-License-Identifier: Apache-2.0

package main

import (
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/tpmcmd"
	"hwvtpm/coproc/metrics"
	"hwvtpm/firmware/broker"
	"hwvtpm/firmware/card"
	"hwvtpm/internal/cli"
)

// figures are the daemon's metrics. Their names are part of the interface, and
// listed in docs/operations.md.
type figures struct {
	card       *card.Card
	broker     *broker.Server
	protection string
}

// collect writes all families.
func (f figures) collect(w *metrics.Writer) {
	s := f.card.Stats()
	f.program(w, &s)
	commands(w, &s)
	workers(w, &s)
	storage(w, &s)
	f.clients(w, &s)
	slots(w, s.Slots)
}

func (f figures) program(w *metrics.Writer, s *card.Stats) {
	w.Gauge("coprocd_build_info", "Version of the program, always 1.").
		Count(1, metrics.Label{Name: "version", Value: cli.Version()})
	w.Gauge("coprocd_protection_info", "How storage key and counter are kept, always 1.").
		Count(1, metrics.Label{Name: "key", Value: protectionKind(s.Health.KeyProtection)},
			metrics.Label{Name: "rollback", Value: protectionKind(s.Health.RollbackProtection)},
			metrics.Label{Name: "description", Value: f.protection})
	w.Gauge("coprocd_uptime_seconds", "Since the card was opened.").Count(s.Health.Uptime)
}

func protectionKind(kind uint32) string {
	if kind == abi.ProtectionTPM {
		return "host-tpm"
	}
	return "none"
}

// commands writes what is known of TPM commands.
func commands(w *metrics.Writer, s *card.Stats) {
	latency := w.Latencies("coprocd_command_duration_seconds", "TPM commands of all slots in the engine, by class of command.")
	for i := range s.Classes {
		h := &s.Classes[i]
		latency.Latency(&h.Count, h.Sum, metrics.Label{Name: "class", Value: tpmcmd.Class(i).String()})
	}
	results := w.Counter("coprocd_commands_total", "TPM commands of all slots, by kind of response code.")
	for i, n := range s.Results {
		results.Count(n, metrics.Label{Name: "result", Value: tpmcmd.Result(i).String()})
	}
	busy := uint64(0)
	for i := range s.Slots {
		if s.Slots[i].Busy {
			busy++
		}
	}
	w.Gauge("coprocd_queue_depth", "Slots that execute a command now.").Count(busy)
}

// workers writes what is known of slots' lives and of workers.
func workers(w *metrics.Writer, s *card.Stats) {
	lives := w.Gauge("coprocd_slots", "Slots by what they do now.")
	var n [abi.LifeFaulted + 1]uint64
	for _, slot := range s.Slots {
		n[slot.Life]++
	}
	for life, count := range n {
		lives.Count(count, metrics.Label{Name: "life", Value: abi.SlotLife(life).String()})
	}
	w.Gauge("coprocd_spare_workers", "Workers that wait for a slot.").Count(uint64(s.Health.Spares))
	w.Counter("coprocd_worker_restarts_total", "Workers that died unasked.").Count(s.Counters.Restarts)
	w.Counter("coprocd_parks_total", "Idle slots that gave their worker back.").Count(s.Counters.Parks)
	w.Latencies("coprocd_resume_duration_seconds", "From the command to a parked slot until a worker takes it.").
		Latency(&s.Resumes.Count, s.Resumes.Sum)
}

// storage writes what is known of the store.
func storage(w *metrics.Writer, s *card.Stats) {
	w.Latencies("coprocd_save_duration_seconds", "Making the state of a slot durable.").Latency(&s.Saves.Count, s.Saves.Sum)
	w.Counter("coprocd_saves_total", "Durable states written.").Count(s.Counters.Saves)
	w.Counter("coprocd_save_errors_total", "Durable states that could not be written.").Count(s.Counters.SaveErrors)
	w.Counter("coprocd_boot_evidence_unshown_total", "Starts of a TPM that had no room for the evidence of its host's boot.").Count(s.Unshown)
	w.Gauge("coprocd_anchor_counter", "Counter of the anchor against rollback.").Count(s.Health.AnchorCounter)
	w.Gauge("coprocd_anchor_epoch", "Epoch of the anchor against rollback.").Count(s.Health.Epoch)
}

// clients writes what is known of clients and of what they asked for.
func (f figures) clients(w *metrics.Writer, s *card.Stats) {
	c := f.broker.Stats()
	w.Gauge("coprocd_connections", "Clients that are connected to the socket.").Count(uint64(c.Open))
	w.Counter("coprocd_connections_accepted_total", "Clients served on the socket.").Count(c.Accepted)
	w.Counter("coprocd_connections_refused_total", "Clients turned away, over a limit.").Count(c.Refused)
	w.Counter("coprocd_connections_broken_total", "Connections ended because the client broke a rule.").Count(c.Broken)
	w.Counter("coprocd_denied_total", "Proofs and rights refused.").Count(s.Counters.Denied)
	acts := w.Counter("coprocd_slot_acts_total", "What was done with slots.")
	for _, a := range []struct {
		act string
		n   uint64
	}{
		{"create", s.Counters.Creates}, {"destroy", s.Counters.Destroys}, {"clone", s.Counters.Clones},
		{"adopt", s.Counters.Adopts}, {"open", s.Counters.Opens},
	} {
		acts.Count(a.n, metrics.Label{Name: "act", Value: a.act})
	}
}

// slots writes what is known of each slot. A family's samples stand together.
func slots(w *metrics.Writer, all []card.SlotStats) {
	each := func(f metrics.Family, value func(*card.SlotStats) uint64) {
		for i := range all {
			f.Count(value(&all[i]), metrics.Label{Name: "slot", Value: all[i].Name})
		}
	}
	each(w.Gauge("coprocd_slot_state_generation", "Generation of a slot's durable state."),
		func(s *card.SlotStats) uint64 { return s.Generation })
	each(w.Gauge("coprocd_slot_state_epoch", "Epoch of a slot's durable state."),
		func(s *card.SlotStats) uint64 { return s.Epoch })
	each(w.Counter("coprocd_slot_commands_total", "TPM commands of a slot."),
		func(s *card.SlotStats) uint64 { return s.Commands })
	each(w.Counter("coprocd_slot_restarts_total", "Workers of a slot that died unasked."),
		func(s *card.SlotStats) uint64 { return s.Restarts })
}
