// SPDX-License-Identifier: Apache-2.0

package bench

import "fmt"

// verifyGoal is how much evidence a core is to verify in a second.
const verifyGoal = 1000

func enrolTable(a *AttestReport) string {
	t := newTable("p50 / p99", "key is made", "enrolment", "both", "both / go-attestation, slot")
	for _, r := range a.Enrol {
		t.add(r.What, pair(r.Key), pair(r.Enrol), pair(r.Both), times(r.Ratio))
	}
	return t.String()
}

func evidenceTable(a *AttestReport) string {
	e := a.Evidence
	t := newTable("p50 / p99", "time", "ratio")
	t.add("the machine's own quote, slot", pair(e.Quote), times(e.QuoteRatio))
	t.add("go-attestation, PCRs and Quote, slot", pair(e.TheirQuote), times(1))
	t.add("whole evidence, swtpm as the host's TPM", pair(e.Whole), times(e.WholeRatio))
	t.add("of that, the host's TPM", pair(e.HostTPM), times(ratio(e.HostTPM.P50, e.Platform.P50)))
	t.add("whole evidence, without the host's TPM", pair(e.Without), times(ratio(e.Without.P50, e.Platform.P50)))
	t.add("go-attestation, AttestPlatform, swtpm", pair(e.Platform), times(1))
	return t.String()
}

func verifyTable(a *AttestReport) string {
	t := newTable("evidence", "processor time", "a second, per core", "wall, p50 / p99", "quote and log = 1")
	for _, r := range a.Verify {
		t.add(r.What, micros(r.CPU), fmt.Sprintf("%.0f", r.Rate), pair(r.Wall), times(r.Ratio))
	}
	return t.String()
}

// judgeAttest fills in the verdicts on verification.
func (r *Report) judgeAttest() {
	if r.Attest == nil || len(r.Attest.Verify) == 0 {
		return
	}
	rows := r.Attest.Verify
	peer := rows[len(rows)-1]
	for _, row := range rows {
		if !row.Goal {
			continue
		}
		r.verdict("evidence verified, "+row.What, fmt.Sprintf("over %d a second, per core", verifyGoal), fmt.Sprintf("%.0f", row.Rate), row.Rate > verifyGoal,
			fmt.Sprintf("%s of processor time for all layers, certificates and statements; go-attestation takes %s for one layer", micros(row.CPU), micros(peer.CPU)))
	}
}
