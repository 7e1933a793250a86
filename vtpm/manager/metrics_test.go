// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/metrics"
	"hwvtpm/vtpm/door"
)

// scraped has these lines in what a manager shows, each alone.
func (r *rig) scraped(what string, want ...string) {
	r.Helper()
	var w metrics.Writer
	r.m.WriteMetrics(&w)
	text := string(w.Bytes())
	for _, line := range want {
		if !strings.Contains(text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			var near []string
			for l := range strings.Lines(text) {
				if strings.HasPrefix(l, name) {
					near = append(near, l)
				}
			}
			r.Errorf("%s: no line %q in\n%s", what, line, strings.Join(near, ""))
		}
	}
}

// TestMetrics: what happens at doors, TPM and authority is counted once, and by the name of
// no machine.
func TestMetrics(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.authority.set(func(f *fakeAuthority) { f.err = errTest })
		token(r)
		r.start()
		r.scraped("before it is enrolled",
			`hostd_certificate_not_after_timestamp_seconds{of="host-aik"} 0`,
			`hostd_problem{of="identity"} 1`,
			`hostd_authority_questions_total{question="enrol",result="failed"} 1`,
			`hostd_card_connected 1`,
			`hostd_quotes_total{for="evidence",result="made"} 0`)
		r.authority.set(func(f *fakeAuthority) { f.err = nil })
		r.pass(time.Minute)
		a := r.newMachine("vm-a", 0x10)
		r.pass(r.cfg.poll())
		id := r.m.identity()
		r.scraped("when it is enrolled",
			fmt.Sprintf(`hostd_certificate_not_before_timestamp_seconds{of="host-aik"} %v`, float64(id.aik.NotBefore.Unix())),
			fmt.Sprintf(`hostd_certificate_not_after_timestamp_seconds{of="host-tls"} %v`, float64(id.tls.Leaf.NotAfter.Unix())),
			`hostd_problem{of="identity"} 0`, `hostd_revoked 0`,
			`hostd_authority_questions_total{question="prove",result="success"} 1`,
			`hostd_machines{certificates="complete"} 1`, `hostd_machines{certificates="missing"} 0`,
			`hostd_quotes_total{for="card",result="made"} 1`)

		guests, backends := r.m.Guests(GuestVsock), r.m.Backends()
		do := func(h door.Handler, op, body string) {
			_, _ = h.Do(r.Context(), door.Caller{VM: "vm-a", UID: -1}, op, []byte(body))
		}
		do(guests, "hello", "{}")
		do(guests, "evidence", `{"nonce":7}`)
		do(guests, "vm-a", "{}")
		do(guests, "vm-b", "{}")
		do(backends, "pcrs", "{}")
		r.pass(time.Second)
		do(backends, "pcrs", "{}")
		for run := range r.m.cfg.Burst + 2 {
			if _, err := r.boot("vm-a", coproc.RunID{byte(run)}); err == nil {
				_, _ = r.boot("vm-a", coproc.RunID{byte(run)})
			}
		}
		r.pcrs.fail(errTest)
		_, _ = r.ask("vm-a", request(r, nonce, a.layer(r, nonce)))
		r.scraped("after all that",
			`hostd_operations_total{door="guest-vsock",operation="hello",result="success"} 1`,
			`hostd_operations_total{door="guest-vsock",operation="evidence",result="bad-request"} 1`,
			`hostd_operations_total{door="guest-vsock",operation="other",result="not-found"} 2`,
			`hostd_operations_total{door="backend",operation="pcrs",result="unavailable"} 2`, // there is no log,
			`hostd_quotes_total{for="mapping",result="made"} 1`, `hostd_quotes_total{for="mapping",result="cached"} 1`,
			`hostd_quotes_total{for="boot-evidence",result="made"} 5`, `hostd_quotes_total{for="boot-evidence",result="cached"} 5`,
			`hostd_quotes_total{for="evidence",result="failed"} 1`,
			`hostd_over_share_total{of="boot-evidence"} 2`, `hostd_over_share_total{of="quotes"} 0`,
			`hostd_quote_duration_seconds_count 7`)
		var w metrics.Writer
		if r.m.WriteMetrics(&w); strings.Contains(string(w.Bytes()), "vm-") {
			r.Error("a machine's name is in the metrics")
		}
		r.m.revoke(errTest)
		r.scraped("when it is revoked", `hostd_revoked 1`)
	})
}
