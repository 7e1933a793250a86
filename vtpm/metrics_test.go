// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"hwvtpm/coproc"
	"hwvtpm/coproc/metrics"
)

// scrape is what a Prometheus server reads from d, by name and label values.
func scrape(t *testing.T, d *Device) map[string]*dto.Metric {
	t.Helper()
	var w metrics.Writer
	d.WriteMetrics(&w)
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(w.Bytes()))
	if err != nil {
		t.Fatalf("Prometheus does not take this: %v\n%s", err, w.Bytes())
	}
	all := map[string]*dto.Metric{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			key := []string{name}
			for _, l := range m.GetLabel() {
				key = append(key, l.GetValue())
			}
			all[strings.Join(key, " ")] = m
		}
	}
	return all
}

func wantCounts(t *testing.T, got map[string]*dto.Metric, want map[string]float64) {
	t.Helper()
	for key, v := range want {
		m := got[key]
		if m == nil {
			t.Errorf("there is no %s", key)
		} else if have := m.GetCounter().GetValue() + m.GetGauge().GetValue(); have != v {
			t.Errorf("%s = %v, want %v", key, have, v)
		}
	}
}

func TestMetricsOfCommands(t *testing.T) {
	slot := &scriptSlot{}
	d := newTestDevice(t, slot, nil)
	run := func(code uint32, answer func(coproc.Command, []byte) (int, error)) {
		slot.answer = answer
		d.Handle(chain(sized(code, 12), BufferSize))
	}
	for range 3 {
		run(0x17b, answerWith(sized(0, 20))) // GetRandom
	}
	run(0x15d, answerWith(sized(0x9a2, 10))) // Sign, TPM_RC_BAD_AUTH
	run(0x182, answerWith(sized(0x922, 10))) // PCR_Extend, TPM_RC_RETRY
	run(0x14e, func(coproc.Command, []byte) (int, error) { return 0, errors.New("no card") })
	d.Handle(chain([]byte("nonsense"), BufferSize))
	d.Handle(chain(sized(0x17b, 12), 0))

	got := scrape(t, d)
	wantCounts(t, got, map[string]float64{
		"hwvtpm_commands_total random success": 3,
		"hwvtpm_commands_total random error":   0,
		"hwvtpm_commands_total sign format1":   1,
		"hwvtpm_commands_total pcr warning":    1,
		"hwvtpm_commands_total nv failure":     1,
		"hwvtpm_commands_total other error":    1,
		"hwvtpm_slot_errors_total":             1,
		"hwvtpm_bad_requests_total":            1,
		"hwvtpm_power_ons_total":               1,
		"hwvtpm_commands_pending":              0,
	})
	for class, n := range map[string]uint64{"random": 3, "sign": 1, "pcr": 1, "nv": 1, "other": 1, "key": 0} {
		h := got["hwvtpm_command_duration_seconds "+class].GetHistogram()
		if h.GetSampleCount() != n || (n > 0) != (h.GetSampleSum() > 0) {
			t.Errorf("class %s: %d samples of %v s, want %d", class, h.GetSampleCount(), h.GetSampleSum(), n)
		}
	}
}

func TestMetricsOfState(t *testing.T) {
	slot := &scriptSlot{answer: answerWith(sized(0, 10))}
	mon := &scriptMonitor{}
	d, err := NewDevice(Config{Slot: slot, Policy: PolicyQMP, Monitor: mon})
	if err != nil {
		t.Fatal(err)
	}
	wantState := func(state string) {
		t.Helper()
		want := map[string]float64{}
		for _, s := range []string{tpmOff, tpmRunning, tpmResetPending, tpmFailing} {
			want["hwvtpm_tpm_state "+s] = 0
		}
		want["hwvtpm_tpm_state "+state] = 1
		wantCounts(t, scrape(t, d), want)
	}
	wantState(tpmOff)
	if err := d.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatal(err)
	}
	mustStart(t, d, 0, 0)
	wantState(tpmRunning)
	mon.reset = true
	d.CheckMonitor()
	wantState(tpmResetPending)
	slot.resetErr = errScript
	command(d)
	wantState(tpmFailing)
	slot.resetErr = nil
	command(d)
	wantState(tpmRunning)
	wantCounts(t, scrape(t, d), map[string]float64{"hwvtpm_resets_total": 1, "hwvtpm_blind_starts_total": 0})
}

func TestCountingAllocatesNothing(t *testing.T) {
	slot := &scriptSlot{}
	d := newTestDevice(t, slot, nil)
	r := request{command: sized(0x17b, 12), response: make([]byte, BufferSize), locality: MaxLocality + 1}
	if n := testing.AllocsPerRun(100, func() { d.observed(&r, false) }); n != 0 {
		t.Errorf("%v allocations for a command that the device refuses by itself", n)
	}
}

func BenchmarkObserved(b *testing.B) {
	d, err := NewDevice(Config{Slot: &scriptSlot{}, Policy: PolicyKeep})
	if err != nil {
		b.Fatal(err)
	}
	r := request{command: sized(0x17b, 12), response: make([]byte, BufferSize), locality: MaxLocality + 1}
	b.Run("counted", func(b *testing.B) {
		for b.Loop() {
			d.observed(&r, false)
		}
	})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			d.execute(&r, false)
		}
	})
}
