// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hwvtpm/internal/cli"
	"hwvtpm/vhostuser/vhostusertest"
)

// scrape does what a Prometheus server does, by hand.
func scrape(t *testing.T, path string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: vtpm\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
		t.Fatalf("answer %q, %v", answer, err)
	}
	return string(answer)
}

func TestMetrics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics")
	p := start(t, stateDir(t), "--reset-policy", "keep", "--metrics", "unix:"+path)
	if got := scrape(t, path); !strings.Contains(got, "\nhwvtpm_tpm_state{state=\"off\"} 1\n") {
		t.Errorf("before a virtual machine came:\n%s", got)
	}
	g := connect(t, p, vhostusertest.Options{})
	g.startup()
	g.extend()
	got := scrape(t, path)
	for _, want := range []string{
		`hwvtpm_tpm_state{state="running"} 1`,
		`hwvtpm_commands_total{class="manage",result="success"} 1`,
		`hwvtpm_commands_total{class="pcr",result="success"} 1`,
		`hwvtpm_command_duration_seconds_count{class="pcr"} 1`,
		`hwvtpm_power_ons_total 1`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket of the metrics is left over: %v", err)
	}
}

func TestMetricsAddressThatCannotBe(t *testing.T) {
	for _, addr := range []string{"nonsense", "unix:/nonexistent/metrics"} {
		p := launch(t, stateDir(t), "--reset-policy", "keep", "--metrics", addr)
		if code := p.wait(); code != cli.ExitFailure {
			t.Errorf("--metrics %s: exit code %d", addr, code)
		}
		p.waitLog("metrics: ")
	}
}
