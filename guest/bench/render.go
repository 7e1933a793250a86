// SPDX-License-Identifier: Apache-2.0

package bench

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"
)

//go:embed report.md.tmpl
var reportText string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"verdicts": verdictTable, "causes": causeList, "guest": guestTable, "stock": stockTable, "stages": stageTable, "host": hostTable, "cpu": cpuTable,
	"starts": startTable, "memory": memoryTable, "nv": nvTable, "allocations": allocTable,
	"rates": rateTable, "resume": resumeTable, "cardmemory": cardMemoryTable, "creates": createTable,
	"enrol": enrolTable, "evidence": evidenceTable, "verify": verifyTable, "kib": kibibytes,
}).Parse(reportText))

// Markdown writes the report as docs/benchmarks.md has it.
func (r *Report) Markdown(w io.Writer) error {
	if err := reportTemplate.Execute(w, r); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}

func verdictTable(verdicts []Verdict) string {
	t := newTable("target", "wanted", "measured", "verdict")
	for _, v := range verdicts {
		verdict := "met"
		if !v.Met {
			verdict = "**missed**"
		}
		t.add(v.What, v.Target, v.Measured, verdict)
	}
	return t.String()
}

// causeList tells why targets were missed, each cause once.
func causeList(verdicts []Verdict) string {
	var b strings.Builder
	for _, v := range verdicts {
		if !v.Met {
			fmt.Fprintf(&b, "- %s: %s.\n", v.What, v.Cause)
		}
	}
	return b.String()
}

func guestTable(g *GuestReport) string {
	t := newTable("p50 / p99 / mean", "processors", "hwvtpm, split", "hwvtpm, packed", "swtpm, tpm-crb", "swtpm, tpm-tis", "split / crb", "of means")
	for _, r := range g.Rows {
		t.add(label(r.Command), r.Placement, triple(r.Split), triple(r.Packed), triple(r.CRB), triple(r.TIS), times(r.Ratio), times(r.MeanRatio))
	}
	return t.String()
}

func stockTable(g *GuestReport) string {
	t := newTable("p50 / p99 / mean", "processors", "hwvtpm, tpm-crb", "swtpm, tpm-crb", "ratio", "hwvtpm, tpm-tis", "swtpm, tpm-tis", "ratio")
	for _, r := range g.Rows {
		t.add(label(r.Command), r.Placement, triple(r.OurCRB), triple(r.CRB), times(ratio(r.OurCRB.P50, r.CRB.P50)),
			triple(r.OurTIS), triple(r.TIS), times(ratio(r.OurTIS.P50, r.TIS.P50)))
	}
	return t.String()
}

func stageTable(stages []Stages) string {
	t := newTable("p50", "guest kernel, driver, QEMU", "ring", "channel", "engine", "sum = in the guest", "backend and engine on a CPU")
	cell := func(d, total time.Duration) string {
		return fmt.Sprintf("%s (%.0f %%)", micros(d), 100*ratio(d, total))
	}
	for _, s := range stages {
		t.add(label(s.Command)+", "+s.Placement, cell(s.Guest, s.Total), cell(s.Ring, s.Total), cell(s.Channel, s.Total), cell(s.Engine, s.Total), micros(s.Total), micros(s.InPlace))
	}
	return t.String()
}

func hostTable(rows []HostRow) string {
	t := newTable("p50 / p99", "processors", "hwvtpm, split", "hwvtpm, packed", "slot only", "slot of coprocd", "swtpm's socket", "libtpms alone", "split / swtpm", "coprocd / swtpm")
	for _, r := range rows {
		t.add(label(r.Command), r.Placement, pair(r.Ring), pair(r.Packed), pair(r.Slot), pair(r.Card), pair(r.Swtpm), pair(r.Engine), times(r.Ratio), times(r.CardRatio))
	}
	return t.String()
}

func cpuTable(rows []HostRow) string {
	t := newTable("processor time", "processors", "client", "backend", "engine", "swtpm's client", "swtpm")
	for _, r := range rows {
		if slices.Contains(shortCommands, r.Command) {
			c := r.CPU
			t.add(label(r.Command), r.Placement, micros(c.Client), micros(c.Backend), micros(c.Engine), micros(c.SwtpmClient), micros(c.Swtpm))
		}
	}
	return t.String()
}

func startTable(rows []StartRow) string {
	t := newTable("p50 / p99", "hwvtpm: socket", "hwvtpm: answer", "swtpm: socket", "swtpm: answer", "answer, ratio")
	for _, r := range rows {
		t.add(r.What, pair(r.OursReady), pair(r.OursAnswers), pair(r.SwtpmReady), pair(r.SwtpmAnswers), times(r.AnswersRatio))
	}
	return t.String()
}

func memoryTable(m *MemoryReport) string {
	t := newTable("process", "PSS", "private, written")
	for _, p := range slices.Concat(m.Ours, m.Swtpm) {
		t.add(p.Process, mebibytes(p.PSS), mebibytes(p.Private))
	}
	return t.String()
}

func nvTable(n *NVReport) string {
	t := newTable("p50 / p99", "hwvtpm, durable", "coprocd, durable", "swtpm, not synced", "sync alone", "ratio")
	for _, r := range n.Rows {
		t.add(fmt.Sprintf("NV_Write, %d bytes", r.Bytes), pair(r.Ours), pair(r.Card), pair(r.Swtpm), pair(r.Sync), times(r.Ratio))
	}
	return t.String()
}

func allocTable(rows []AllocRow) string {
	t := newTable("path", "requests", "allocations per request")
	for _, r := range rows {
		t.add(r.What, fmt.Sprint(r.Requests), fmt.Sprintf("%.3f", r.PerRequest))
	}
	return t.String()
}
