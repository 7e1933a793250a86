// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"pgregory.net/rapid"

	"hwvtpm/coproc/abi/tpmcmd"
)

func TestGolden(t *testing.T) {
	var w Writer
	f := w.Counter("x_total", "Things, \\ and\nmore.")
	f.Count(math.MaxUint64)
	f.Count(3, Label{"a", `q"u\o` + "\n"}, Label{"b", "\xffé"})
	w.Gauge("y", "").Sample(-0.25)
	const want = `# HELP x_total Things, \\ and\nmore.
# TYPE x_total counter
x_total 18446744073709551615
x_total{a="q\"u\\o\n",b="` + "\uFFFD" + `é"} 3
# HELP y 
# TYPE y gauge
y -0.25
`
	if diff := cmp.Diff(want, string(w.Bytes())); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

// parse reads text as a Prometheus server does.
func parse(t interface{ Fatalf(string, ...any) }, text []byte) map[string]*dto.MetricFamily {
	p := expfmt.NewTextParser(model.LegacyValidation)
	all, err := p.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("Prometheus does not take this: %v\n%s", err, text)
	}
	return all
}

func TestLatency(t *testing.T) {
	var counts [tpmcmd.Buckets]uint64
	sum, total := uint64(0), uint64(0)
	for i := range counts {
		counts[i] = uint64(i + 1)
		total += counts[i]
		sum += 1_000_000_000
	}
	var w Writer
	w.Latencies("z_seconds", "Times.").Latency(&counts, sum, Label{"class", "sign"})
	m := parse(t, w.Bytes())["z_seconds"].GetMetric()[0]
	h := m.GetHistogram()
	if h.GetSampleCount() != total || h.GetSampleSum() != tpmcmd.Buckets || m.GetLabel()[0].GetValue() != "sign" {
		t.Errorf("histogram %v, want %d samples of %d s", h, total, tpmcmd.Buckets)
	}
	below := uint64(0)
	for i, b := range h.GetBucket() {
		below += counts[i]
		want := tpmcmd.Bound(i).Seconds()
		if i == tpmcmd.Buckets-1 {
			want = math.Inf(1)
		}
		if b.GetCumulativeCount() != below || b.GetUpperBound() != want {
			t.Errorf("bucket %d is %v, want %d up to %v s", i, b, below, want)
		}
	}
	if n := len(h.GetBucket()); n != tpmcmd.Buckets {
		t.Errorf("%d buckets, want %d", n, tpmcmd.Buckets)
	}
}

func TestWritingAllocatesNothing(t *testing.T) {
	var counts [tpmcmd.Buckets]uint64
	var w Writer
	write := func() {
		w.text = w.text[:0]
		f := w.Latencies("z_seconds", "Times.")
		for c := range tpmcmd.Class(tpmcmd.Classes) {
			f.Latency(&counts, 1e9, Label{"class", c.String()})
		}
		w.Counter("c_total", "Count.").Count(12, Label{"a", "b"}, Label{"c", "d"})
		w.Gauge("g", "Gauge.").Sample(1.5)
	}
	write()
	if n := testing.AllocsPerRun(100, write); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Any text comes back as it was written.
func TestLabelsSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		help, value := rapid.String().Draw(t, "help"), rapid.String().Draw(t, "value")
		v := rapid.Float64().Draw(t, "v")
		var w Writer
		w.Gauge("g", help).Sample(v, Label{"l", value}, Label{"second", "x"})
		m := parse(t, w.Bytes())["g"].GetMetric()[0]
		if got := m.GetLabel()[0].GetValue(); got != value {
			t.Fatalf("label %q came back as %q", value, got)
		}
		if got := m.GetGauge().GetValue(); got != v {
			t.Fatalf("%v came back as %v", v, got)
		}
	})
}
