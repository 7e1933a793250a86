// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"time"
)

// AttestReport is about enrolment, evidence and its verification. go-attestation
// does what it has of that for one layer: it knows no host, no card and no
// authority.
type AttestReport struct {
	Machines int         `json:"machines"`
	Log      int64       `json:"log"` // bytes of the host's event log
	Enrol    []EnrolRow  `json:"enrol"`
	Evidence EvidenceRow `json:"evidence"`
	Text     int64       `json:"text"` // bytes of evidence, as it is sent
	Verify   []VerifyRow `json:"verify"`
}

// EnrolRow is one way to have an attestation key proven.
type EnrolRow struct {
	What  string  `json:"what"`
	Key   Dist    `json:"key"`   // the key is made
	Enrol Dist    `json:"enrol"` // from then to the certificate, or to the secret
	Both  Dist    `json:"both"`
	Ratio float64 `json:"ratio"` // both, of go-attestation on the same TPM; medians
}

// EvidenceRow is what evidence takes. Without is Whole less HostTPM, by sample.
type EvidenceRow struct {
	Quote      Dist    `json:"quote"`       // the machine's own, with the values
	TheirQuote Dist    `json:"their_quote"` // go-attestation's on the same TPM
	Platform   Dist    `json:"platform"`    // go-attestation's AttestPlatform on swtpm
	Whole      Dist    `json:"whole"`       // machine, card and host
	HostTPM    Dist    `json:"host_tpm"`    // of that, the host's TPM had a command
	Without    Dist    `json:"without"`
	QuoteRatio float64 `json:"quote_ratio"`
	WholeRatio float64 `json:"whole_ratio"` // of AttestPlatform

	// Commands that a TPM had for one, means: the machine's for its quote, by us and
	// by go-attestation, and the host's for whole evidence.
	QuoteCommands float64 `json:"quote_commands"`
	TheirCommands float64 `json:"their_commands"`
	HostCommands  float64 `json:"host_commands"`
}

// VerifyRow is one kind of check.
type VerifyRow struct {
	What  string        `json:"what"`
	Goal  bool          `json:"goal"`   // verifyGoal is asked of it
	Wall  Dist          `json:"wall"`   //
	CPU   time.Duration `json:"cpu_ns"` // of this process, a mean: memory management is in it
	Rate  float64       `json:"rate"`   // a second of one core
	Ratio float64       `json:"ratio"`  // processor time, of go-attestation's check of quote and log
}

// measureAttest has the programs work, and judges what they made when they have
// ended.
func measureAttest(ctx context.Context, p programs, dir string, plan Plan, progress func(string, ...any)) (r AttestReport, err error) {
	progress("attestation: a host and its authority")
	c, err := startCloud(ctx, p, dir, plan)
	if err != nil {
		return r, err
	}
	r.Machines, r.Log = len(c.machines), int64(len(hostLog))
	f, err := r.fill(ctx, c, progress)
	c.close()
	if err != nil {
		return r, err
	}
	r.Text = int64(len(f.answers[0][0]))
	progress("attestation: verification")
	r.Verify, err = measureVerify(ctx, f, plan)
	return r, err
}

func (r *AttestReport) fill(ctx context.Context, c *cloud, progress func(string, ...any)) (f *fleet, err error) {
	progress("attestation: enrolment")
	if r.Enrol, err = measureEnrol(ctx, c); err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	progress("attestation: evidence")
	if f, r.Evidence, err = measureEvidence(ctx, c); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return f, nil
}
