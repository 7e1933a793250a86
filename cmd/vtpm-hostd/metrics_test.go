// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostdoor"
)

// TestMetrics: a scrape of the daemon has what happened, and its socket goes with it.
func TestMetrics(t *testing.T) {
	s := newSite(t)
	s.startHost("--metrics", "unix:"+s.path("metrics"))
	s.healthy()
	s.create("vm1")
	var hello door.Hello
	if err := s.guest("vm1").Call(t.Context(), door.OpHello, nil, &hello); err != nil {
		t.Fatal(err)
	}
	backend := &hostdoor.Client{Socket: s.path("backend.sock")}
	for range 3 { // a machine that is reset
		if _, err := backend.BootEvidence(t.Context(), "vm1", coproc.RunID{1}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`hostd_build_info{version="`,
		`hostd_revoked 0`,
		`hostd_card_connected 1`,
		`hostd_certificate_not_after_timestamp_seconds{of="host-tls"} 1.`,
		`hostd_machines{certificates="complete"} 1`,
		`hostd_problem{of="identity"} 0`,
		`hostd_authority_questions_total{question="prove",result="success"} 1`,
		`hostd_operations_total{door="guest-socket",operation="hello",result="success"} 1`,
		`hostd_operations_total{door="backend",operation="boot-evidence",result="success"} 3`,
		`hostd_quotes_total{for="boot-evidence",result="made"} 1`,
		`hostd_quotes_total{for="boot-evidence",result="cached"} 2`,
		`hostd_over_share_total{of="quotes"} 0`,
		`hostd_quote_duration_seconds_bucket{le="+Inf"} 2`, // and the card's
	}
	var text string
	defer func() {
		if t.Failed() {
			t.Log(text)
		}
	}()
	until(t, "metrics of all that happened", func() bool { // the daemon sees a new slot after a while
		text = s.scrape("metrics")
		return !slices.ContainsFunc(want, func(line string) bool { return !strings.Contains(text, "\n"+line) })
	})
	s.host.end()
	if _, err := os.Stat(s.path("metrics")); err == nil {
		t.Error("the socket of the metrics is left over")
	}
}

// scrape does what a Prometheus server does.
func (s *site) scrape(socket string) string {
	s.t.Helper()
	dial := func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", s.path(socket)) }
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := c.Get("http://hostd/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %v", resp.Status, err)
	}
	return string(text)
}
