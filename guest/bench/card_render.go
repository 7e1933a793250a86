// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"time"
)

func rateTable(c *CardReport) string {
	t := newTable("commands per second", "TPMs", "hwvtpm, one coprocd", "swtpm processes", "hwvtpm / swtpm")
	for _, r := range c.Rates {
		t.add(label(r.Command), fmt.Sprint(r.Slots), fmt.Sprintf("%.0f", r.Ours), fmt.Sprintf("%.0f", r.Swtpm), times(r.Ratio))
	}
	return t.String()
}

func resumeTable(c *CardReport) string {
	t := newTable("p50 / p99", "time")
	t.add("GetRandom, slot is live", pair(c.Resume.Live))
	t.add("GetRandom, slot is parked", pair(c.Resume.Parked))
	t.add("open and power on a closed slot", pair(c.Resume.Open))
	return t.String()
}

func cardMemoryTable(c *CardReport) string {
	m := c.Memory
	t := newTable("PSS", "TPMs", "each", "coprocd itself")
	t.add("hwvtpm, live slots", fmt.Sprint(m.Live), mebibytes(m.PerLive), mebibytes(m.Card))
	t.add("swtpm processes", fmt.Sprint(m.Live), mebibytes(m.PerSwtpm), "-")
	t.add("hwvtpm, parked slots", fmt.Sprint(m.Parked), kibibytes(m.PerParked), mebibytes(m.CardAtParked))
	return t.String()
}

func createTable(c *CardReport) string {
	t := newTable("keys made", "slots", "each, p50 / p99", "in all")
	for _, r := range c.Creates {
		t.add(r.What, fmt.Sprint(r.Slots), pair(r.Each), r.Total.Round(time.Millisecond).String())
	}
	return t.String()
}

func kibibytes(n int64) string { return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10)) }
