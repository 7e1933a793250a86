// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadFrame(t *testing.T) {
	whole := []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 32}
	for name, in := range map[string]io.Reader{
		"at once":      bytes.NewReader(whole),
		"in bytes":     iotest.OneByteReader(bytes.NewReader(whole)),
		"with another": bytes.NewReader(slices.Concat(whole, whole)),
	} {
		got, err := readFrame(in, make([]byte, 12))
		if err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%s: readFrame() = %x, %v", name, got, err)
		}
	}
	for name, in := range map[string][]byte{
		"nothing":         nil,
		"half a header":   whole[:5],
		"cut":             whole[:11],
		"below a header":  {0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0},
		"beyond a buffer": {0x80, 1, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0},
		"huge":            {0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
	} {
		if got, err := readFrame(bytes.NewReader(in), make([]byte, 12)); err == nil {
			t.Errorf("%s: readFrame() = %x", name, got)
		}
	}
}

// A meter's client sees the TPM's answers, and the meter how long the TPM took for
// them: not what the client did between.
func TestMeterSeesTheTPMAlone(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "tpm"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const work = 20 * time.Millisecond
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			for buf := make([]byte, maxFrame); ; {
				cmd, err := readFrame(c, buf)
				if err != nil {
					break
				}
				time.Sleep(work)
				c.Write(append(cmd[:6:6], 0, 0, 1, 0))
			}
			c.Close()
		}
	}()
	m, err := newMeter(filepath.Join(dir, "meter"), filepath.Join(dir, "tpm"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	begin := time.Now()
	for range 2 { // one after the other, as programs that share a TPM
		c, err := net.Dial("unix", filepath.Join(dir, "meter"))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			time.Sleep(2 * work)
			if _, err := c.Write([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x7b}); err != nil {
				t.Fatal(err)
			}
			got, err := readFrame(c, make([]byte, maxFrame))
			if want := []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0}; err != nil || !bytes.Equal(got, want) {
				t.Fatalf("answer %x, %v, want %x", got, err, want)
			}
		}
		c.Close()
	}
	used, count := m.total()
	if all := time.Since(begin); count != 4 || used < 4*work || used > all-8*work {
		t.Errorf("total() = %v, %d commands, of %v in which the client slept %v", used, count, all, 8*work)
	}
}

func TestMeterEndsWithAClientThatWaits(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "tpm"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	m, err := newMeter(filepath.Join(dir, "meter"), filepath.Join(dir, "tpm"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", filepath.Join(dir, "meter"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m.close()
	m.close()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a meter that is closed", n)
	}
}

// Each prepare is followed by a batch, and only checks are counted.
func TestJudgeRounds(t *testing.T) {
	var steps []string
	j := &judge{batch: 3,
		prepare: func() error { steps = append(steps, "p"); return nil },
		check:   func(i int) error { steps = append(steps, fmt.Sprint(i)); return nil },
	}
	if err := j.round(4); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(steps, ""), "p012p345"; got != want {
		t.Errorf("steps %s, want %s", got, want)
	}
	if d := j.wall.dist(); d.Rounds != 1 || d.Samples != 6 {
		t.Errorf("dist() = %+v, want 6 samples of a round", d)
	}
	bad := errors.New("does not hold")
	j.check = func(int) error { return bad }
	if err := j.round(1); !errors.Is(err, bad) {
		t.Errorf("round() = %v, want %v", err, bad)
	}
}

func TestFleetsThatAreTooSmall(t *testing.T) {
	for _, f := range []*fleet{
		{nonces: [][]byte{nil, nil}, answers: make([][][]byte, 1)},
		{nonces: [][]byte{nil}, answers: make([][][]byte, 2)},
	} {
		if _, err := f.judges(); err == nil {
			t.Errorf("judges() of %d machines with %d answers = nil error", len(f.answers), len(f.nonces))
		}
	}
}

func TestHostKeyOfAShortChain(t *testing.T) {
	const block = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
	for _, chain := range []string{"", "text", block, block + block, block + block + block} {
		if _, err := hostKey(chain); err == nil {
			t.Errorf("hostKey(%q) = nil error", chain)
		}
	}
}

func TestVerifyRows(t *testing.T) {
	var one, four series
	one.add(ms(9))
	four.add(ms(1, 2, 3, 4))
	rows := verifyRows([]*judge{
		{what: "ours", goal: true, wall: four, cpu: 8 * time.Millisecond},
		{what: "theirs", wall: one, cpu: 500 * time.Microsecond},
	})
	want := []VerifyRow{
		{What: "ours", Goal: true, Wall: four.dist(), CPU: 2 * time.Millisecond, Rate: 500, Ratio: 4},
		{What: "theirs", Wall: one.dist(), CPU: 500 * time.Microsecond, Rate: 2000, Ratio: 1},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("verifyRows() (-want +got):\n%s", diff)
	}
}

func TestEnrolRows(t *testing.T) {
	var ways [enrolWays]enrolSeries
	for n := range ways {
		for _, key := range []time.Duration{1, 3, 2} {
			if err := ways[n].add(key*time.Second, time.Duration(n)*time.Second, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := ways[n].add(time.Hour, time.Hour, io.EOF); err != io.EOF {
			t.Errorf("add() = %v, want its error", err)
		}
		ways[n].round()
	}
	type row struct {
		what             string
		key, enrol, both time.Duration
		ratio            float64
	}
	var got []row
	for _, r := range enrolRows(&ways) {
		got = append(got, row{r.What, r.Key.P50, r.Enrol.P50, r.Both.P50, r.Ratio})
	}
	want := []row{
		{enrolNames[oursByDoor], 2 * time.Second, 3 * time.Second, 5 * time.Second, 2.5},
		{enrolNames[oursDirect], 2 * time.Second, 2 * time.Second, 4 * time.Second, 2},
		{enrolNames[peerOnSlot], 2 * time.Second, 0, 2 * time.Second, 1},
		{enrolNames[peerOnSwtpm], 2 * time.Second, 1 * time.Second, 3 * time.Second, 1.5},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("enrolRows() (-want +got):\n%s", diff)
	}
}

// attested is a report of the attestation part alone.
func attested() *Report {
	r := &Report{Command: "test", Machine: Machine{CPUs: 2}, Plan: QuickPlan(), Attest: &AttestReport{
		Machines: 3, Log: 1024, Text: 2048,
		Enrol: []EnrolRow{{What: "hwvtpm", Ratio: 2}},
		Verify: []VerifyRow{
			{What: "nothing known", Goal: true, CPU: 2 * time.Millisecond, Rate: 500},
			{What: "just as many", Goal: true, CPU: time.Millisecond, Rate: verifyGoal},
			{What: "known machine", Goal: true, CPU: 999 * time.Microsecond, Rate: verifyGoal + 1},
			{What: "go-attestation", CPU: 150 * time.Microsecond, Rate: 6667},
		},
	}}
	r.judge()
	return r
}

func TestVerdictsOnVerification(t *testing.T) {
	var got []string
	for _, v := range attested().Verdicts {
		got = append(got, fmt.Sprintf("%s: %s, met %t: %s", v.What, v.Measured, v.Met, v.Cause))
	}
	want := []string{
		"evidence verified, nothing known: 500, met false: 2000 µs of processor time for all layers, certificates and statements; go-attestation takes 150 µs for one layer",
		"evidence verified, just as many: 1000, met false: 1000 µs of processor time for all layers, certificates and statements; go-attestation takes 150 µs for one layer",
		"evidence verified, known machine: 1001, met true: ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestMarkdownOfAttestation(t *testing.T) {
	var b strings.Builder
	if err := attested().Markdown(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"## Targets", "\n## Attestation\n", "### Enrolment", "### Evidence", "### Verification", "1.0 KiB", "swtpm**", "--only attestation"} {
		if !strings.Contains(text, want) {
			t.Errorf("report without %q", want)
		}
	}
	for _, not := range []string{"## Start", "<no value>", "\n\n\n", "%!"} {
		if strings.Contains(text, not) {
			t.Errorf("report with %q:\n%s", not, text)
		}
	}
}
