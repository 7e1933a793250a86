// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/guest/workload"
)

func ms(values ...int) []time.Duration {
	var d []time.Duration
	for _, v := range values {
		d = append(d, time.Duration(v)*time.Millisecond)
	}
	return d
}

func TestSeriesIsTheMedianOverRounds(t *testing.T) {
	var s series
	s.add(ms(9, 1, 5))
	s.add(nil)              // left out
	s.add(ms(100, 200, 90)) // a disturbed round
	s.add(ms(3, 2, 4))
	want := Dist{Rounds: 3, Samples: 9, P50: 5 * time.Millisecond, P99: 9 * time.Millisecond, Mean: 5 * time.Millisecond}
	if diff := cmp.Diff(want, s.dist()); diff != "" {
		t.Errorf("dist() (-want +got):\n%s", diff)
	}
	if got := (&series{}).dist(); got != (Dist{}) {
		t.Errorf("dist() of nothing = %+v", got)
	}
}

func TestPercentileIsNearestRank(t *testing.T) {
	var hundred []int
	for i := range 100 {
		hundred = append(hundred, 100-i)
	}
	for _, tc := range []struct {
		samples []time.Duration
		percent int
		want    time.Duration
	}{
		{nil, 50, 0},
		{ms(7), 99, 7 * time.Millisecond},
		{ms(2, 1), 50, time.Millisecond},
		{ms(hundred...), 50, 50 * time.Millisecond},
		{ms(hundred...), 99, 99 * time.Millisecond},
		{ms(hundred...), 0, time.Millisecond},
	} {
		if got := percentile(tc.samples, tc.percent); got != tc.want {
			t.Errorf("percentile(%v, %d) = %v, want %v", tc.samples, tc.percent, got, tc.want)
		}
	}
}

func TestTPMResponse(t *testing.T) {
	ok := []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0}
	for name, tc := range map[string]struct {
		in   []byte
		want int
	}{
		"whole":     {ok, 10},
		"with more": {append(append([]byte{}, ok...), 1, 2), 10},
		"short":     {ok[:9], 0},
		"cut":       {[]byte{0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0}, 0},
		"too small": {[]byte{0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0}, 0},
		"huge":      {[]byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, 0},
	} {
		if got := len(tpmResponse(tc.in)); got != tc.want {
			t.Errorf("%s: tpmResponse() has %d bytes, want %d", name, got, tc.want)
		}
	}
}

func TestParseMemory(t *testing.T) {
	const rollup = "00400000-7fff ---p 00000000 00:00 0    [rollup]\nRss:     9000 kB\nPss:     1234 kB\nPss_Dirty:  7 kB\nPrivate_Dirty:  56 kB\n"
	m, err := parseMemory(rollup)
	if err != nil || m.PSS != 1234<<10 || m.Private != 56<<10 {
		t.Errorf("parseMemory() = %+v, %v", m, err)
	}
	if _, err := parseMemory("Pss: 1 kB\n"); err == nil {
		t.Error("parseMemory() without Private_Dirty = nil error")
	}
}

// missed is a report in which every target is missed.
func missed() *Report {
	d := func(us int) Dist {
		return Dist{Rounds: 1, Samples: 1, P50: time.Duration(us) * time.Microsecond, P99: time.Duration(2*us) * time.Microsecond}
	}
	r := &Report{
		Command: "make bench", Machine: Machine{CPUs: 2},
		Guest: &GuestReport{Kernel: "6.12", Rows: []GuestRow{
			{Placement: "free", Command: workload.GetRandom, Split: d(500), CRB: d(1000), Ratio: 0.5},
			{Placement: "free", Command: workload.SignECDSA, Split: d(700), CRB: d(1000), Ratio: 0.7},
			{Placement: "free", Command: workload.PCRRead, Split: d(200), CRB: d(100), Ratio: 2, MeanRatio: 0.5},
		}},
		Host: []HostRow{
			{Placement: "free", Command: workload.GetRandom, Ring: d(30), Slot: d(10), Engine: d(1), Swtpm: d(10), Ratio: 3},
			{Placement: "free", Command: workload.SignECDSA, Ring: d(330), Slot: d(310), Engine: d(300), Swtpm: d(310), Ratio: 1.06},
		},
		Memory:      &MemoryReport{Sum: 13 << 20, Ours: []Memory{{"vhost-user-vtpm", 13 << 20, 9 << 20}}},
		Allocations: []AllocRow{{"virtqueue", 100, 0}, {"vhostuser", 100, 2}},
	}
	r.deriveStages()
	r.judge()
	return r
}

func TestVerdictsOfMissesCarryTheirCause(t *testing.T) {
	var got []string
	for _, v := range missed().Verdicts {
		if v.Met {
			t.Errorf("%s is met by %s", v.What, v.Measured)
		}
		got = append(got, v.Cause)
	}
	want := []string{
		"the guest's kernel and QEMU takes 470 µs of 500 µs (free), and the target allows 200 µs",
		"without a virtual machine the slot alone takes 310 µs, and kick to call 330 µs; the target allows 200 µs",
		"swtpm answers before the guest's kernel looks first, so that more than half of its commands do not sleep (ratio of the means: 0.50 x)",
		"four wake-ups (backend, engine, backend, client) instead of two, and 0.0 µs of processor time (client 0.0 µs, backend 0.0 µs, engine 0.0 µs) instead of 0.0 µs",
		"vhost-user-vtpm has 13.0 MiB, of that 9.0 MiB its own",
		"vhostuser",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
}

func TestStagesAddUp(t *testing.T) {
	for _, s := range missed().Stages {
		if sum := s.Guest + s.Ring + s.Channel + s.Engine; sum != s.Total {
			t.Errorf("%s: stages add up to %v of %v", s.Command, sum, s.Total)
		}
	}
}

// A missed target must be seen by who reads the document only.
func TestMarkdownShowsMisses(t *testing.T) {
	var b strings.Builder
	if err := missed().Markdown(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if n := strings.Count(text, "**missed**"); n != 6 {
		t.Errorf("%d misses shown, want 6", n)
	}
	for _, want := range []string{"## In the guest", "### Where the time goes", "## On the host", "p99 as an upper bound", "- in the guest, GetRandom(32), free: "} {
		if !strings.Contains(text, want) {
			t.Errorf("report without %q", want)
		}
	}
	for _, not := range []string{"## Start", "## NV writes", "<no value>", "\n\n\n"} {
		if strings.Contains(text, not) {
			t.Errorf("report with %q:\n%s", not, text)
		}
	}
}

func TestTableColumnsLineUp(t *testing.T) {
	tab := newTable("what", "a", "b")
	tab.add("short", "1 µs", "-")
	const want = "| what  |    a |   b |\n| ----- | ---: | --: |\n| short | 1 µs |   - |\n"
	if diff := cmp.Diff(want, tab.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// smoke runs the whole program on its smallest plan and looks whether every
// part gave figures, whatever these are.
func smoke(t *testing.T, guest bool) {
	r, err := Run(t.Context(), Options{Plan: QuickPlan(), Quick: true, Guest: guest, Command: "test", Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Host) == 0 || len(r.Starts) != 2 || r.Memory == nil || len(r.NV.Rows) != 2 || len(r.Allocations) == 0 || len(r.Verdicts) == 0 {
		t.Fatalf("a part is missing: %+v", r)
	}
	for _, row := range r.Host {
		if row.Ring.P50 <= 0 || row.Packed.P50 <= 0 || row.Slot.P50 <= 0 || row.Swtpm.P50 <= 0 {
			t.Errorf("host row without a figure: %+v", row)
		}
	}
	if r.Attest == nil || len(r.Attest.Enrol) != enrolWays || len(r.Attest.Verify) != 5 || r.Attest.Evidence.HostCommands <= 0 {
		t.Errorf("the attestation part is incomplete: %+v", r.Attest)
	}
	if !guest {
		return
	}
	if len(r.Guest.Rows) < len(workload.Commands) || len(r.Stages) == 0 {
		t.Fatalf("the guest's part is incomplete: %+v", r.Guest)
	}
	for _, row := range r.Guest.Rows {
		if row.Split.P50 <= 0 || row.Packed.P50 <= 0 || row.CRB.P50 <= 0 || row.TIS.P50 <= 0 {
			t.Errorf("guest row without a figure: %+v", row)
		}
	}
}

func TestQuickRunOnTheHost(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") == "" {
		t.Skip("needs swtpm and built programs: set HWVTPM_TEST_ROOT=1")
	}
	smoke(t, false)
}

func TestQuickRunWithGuests(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_VM") == "" {
		t.Skip("boots virtual machines: set HWVTPM_TEST_VM=1")
	}
	smoke(t, true)
}
