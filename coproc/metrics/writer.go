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
	b := append(w.text, "# HELP "...)
	b = append(b, name...)
	b = append(b, ' ')
	b = append(b, helpEscapes.Replace(help)...)
	b = append(b, "\n# TYPE "...)
	b = append(b, name...)
	b = append(b, ' ')
	b = append(b, kind...)
	w.text = append(b, '\n')
	return Family{w: w, name: name}
}

// Sample adds the sample of one combination of labels.
func (f Family) Sample(v float64, labels ...Label) {
	f.head("", "", labels)
	f.float(v)
}

// Count adds a sample that is a whole number.
func (f Family) Count(v uint64, labels ...Label) {
	f.head("", "", labels)
	f.whole(v)
}

// Latency adds a histogram with the buckets of tpmcmd: how many latencies each
// bucket has, and the sum of all in nanoseconds.
func (f Family) Latency(counts *[tpmcmd.Buckets]uint64, sum uint64, labels ...Label) {
	total := uint64(0)
	for i, n := range counts {
		total += n
		f.head("_bucket", bounds[i], labels)
		f.whole(total)
	}
	f.head("_sum", "", labels)
	f.float(float64(sum) / float64(time.Second))
	f.head("_count", "", labels)
	f.whole(total)
}

// bounds are the upper bounds of the buckets, in seconds.
var bounds = func() (b [tpmcmd.Buckets]string) {
	for i := range b {
		b[i] = strconv.FormatFloat(tpmcmd.Bound(i).Seconds(), 'g', -1, 64)
	}
	b[len(b)-1] = "+Inf"
	return b
}()

// head appends all of a sample but its value. le, if there is one, is the bound
// of a bucket.
func (f Family) head(suffix, le string, labels []Label) {
	b := append(f.w.text, f.name...)
	b = append(b, suffix...)
	sep := byte('{')
	for _, l := range labels {
		b = appendLabel(b, sep, l.Name, l.Value)
		sep = ','
	}
	if le != "" {
		b = appendLabel(b, sep, "le", le)
		sep = ','
	}
	if sep == ',' {
		b = append(b, '}')
	}
	f.w.text = append(b, ' ')
}

func appendLabel(b []byte, sep byte, name, value string) []byte {
	b = append(b, sep)
	b = append(b, name...)
	b = append(b, `="`...)
	b = append(b, valueEscapes.Replace(strings.ToValidUTF8(value, "\uFFFD"))...)
	return append(b, '"')
}

func (f Family) float(v float64) {
	f.w.text = append(strconv.AppendFloat(f.w.text, v, 'g', -1, 64), '\n')
}

func (f Family) whole(v uint64) {
	f.w.text = append(strconv.AppendUint(f.w.text, v, 10), '\n')
}
