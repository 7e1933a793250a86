// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"
	"strings"
	"time"

	"hwvtpm/coproc/abi/tpmcmd"
)

// ContentType is the media type of what a Writer writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Writer writes families of samples, one family after the other. The zero value
// is ready. One goroutine owns it.
//
//	# HELP name what it is
//	# TYPE name counter
//	name{label="value"} 12
type Writer struct {
	text []byte
}

// Bytes is what was written so far, the Writer's own.
func (w *Writer) Bytes() []byte { return w.text }

// Label is one dimension of a sample. The value may be any UTF-8 text, the name
// has only letters, digits and underscores.
type Label struct {
	Name, Value string
}

// Family is one metric: a name, and a sample for each combination of labels.
type Family struct {
	w    *Writer
	name string
}

// Counter starts a family of numbers that only grow; its name ends in _total.
func (w *Writer) Counter(name, help string) Family { return w.family(name, "counter", help) }

// Gauge starts a family of numbers that go up and down.
func (w *Writer) Gauge(name, help string) Family { return w.family(name, "gauge", help) }

// Latencies starts a family of histograms over time, in seconds; its name ends
// in _seconds.
func (w *Writer) Latencies(name, help string) Family { return w.family(name, "histogram", help) }

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func (w *Writer) family(name, kind, help string) Family {
	w.text = append(w.text, "# HELP "+name+" "+helpEscapes.Replace(help)+"\n# TYPE "+name+" "+kind+"\n"...)
	return Family{w: w, name: name}
}

// Sample adds the sample of one combination of labels.
func (f Family) Sample(v float64, labels ...Label) {
	f.sample("", strconv.AppendFloat(nil, v, 'g', -1, 64), labels)
}

// Count adds a sample that is a whole number.
func (f Family) Count(v uint64, labels ...Label) {
	f.sample("", strconv.AppendUint(nil, v, 10), labels)
}

// Latency adds a histogram with the buckets of tpmcmd: how many latencies each
// bucket has, and the sum of all in nanoseconds.
func (f Family) Latency(counts *[tpmcmd.Buckets]uint64, sum uint64, labels ...Label) {
	le := append(append([]Label(nil), labels...), Label{Name: "le"})
	total := uint64(0)
	for i, n := range counts {
		total += n
		le[len(labels)].Value = bound(i)
		f.sample("_bucket", strconv.AppendUint(nil, total, 10), le)
	}
	f.sample("_sum", strconv.AppendFloat(nil, float64(sum)/float64(time.Second), 'g', -1, 64), labels)
	f.sample("_count", strconv.AppendUint(nil, total, 10), labels)
}

// bound is the upper bound of a bucket in seconds.
func bound(i int) string {
	if i == tpmcmd.Buckets-1 {
		return "+Inf"
	}
	return strconv.FormatFloat(tpmcmd.Bound(i).Seconds(), 'g', -1, 64)
}

func (f Family) sample(suffix string, value []byte, labels []Label) {
	b := append(f.w.text, f.name...)
	b = append(b, suffix...)
	for i, l := range labels {
		b = append(b, "{,"[min(i, 1)])
		b = append(b, l.Name...)
		b = append(b, `="`...)
		b = append(b, valueEscapes.Replace(strings.ToValidUTF8(l.Value, "\uFFFD"))...)
		b = append(b, '"')
	}
	if len(labels) > 0 {
		b = append(b, '}')
	}
	b = append(b, ' ')
	b = append(b, value...)
	f.w.text = append(b, '\n')
}
