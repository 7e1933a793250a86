// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// table writes Markdown whose columns line up in a terminal, too. The first
// column is text, the others are figures.
type table struct {
	rows [][]string
}

func newTable(head ...string) *table { return &table{rows: [][]string{head}} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// String renders the table. Every row has as many cells as the head.
func (t *table) String() string {
	width := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	for n, row := range t.rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				cell += pad
			} else {
				cell = pad + cell
			}
			fmt.Fprintf(&b, "| %s ", cell)
		}
		b.WriteString("|\n")
		if n == 0 {
			t.rule(&b, width)
		}
	}
	return b.String()
}

func (t *table) rule(b *strings.Builder, width []int) {
	for i, w := range width {
		end := ":"
		if i == 0 {
			end = "-"
		}
		fmt.Fprintf(b, "| %s%s ", strings.Repeat("-", w-1), end)
	}
	b.WriteString("|\n")
}

// micros formats a duration for people; three digits are all that a noisy
// machine gives.
func micros(d time.Duration) string {
	us := float64(d) / float64(time.Microsecond)
	switch {
	case us < 10 && us > -10:
		return fmt.Sprintf("%.1f µs", us)
	case us < 10_000:
		return fmt.Sprintf("%.0f µs", us)
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}

// pair is p50 and p99.
func pair(d Dist) string {
	if d.Samples == 0 {
		return "-"
	}
	return micros(d.P50) + " / " + micros(d.P99)
}

// triple is p50, p99 and mean, for distributions with two peaks.
func triple(d Dist) string {
	if d.Samples == 0 {
		return "-"
	}
	return pair(d) + " / " + micros(d.Mean)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func times(r float64) string { return fmt.Sprintf("%.2f x", r) }
