// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"hwvtpm/vtpm"
	"hwvtpm/vtpm/hostdoor"
)

func TestParseArgs(t *testing.T) {
	c, err := parseArgs([]string{"--socket-path", "s", "--coproc", "sim:d", "--qmp", "q", "--engine", "e",
		"--layout=plain", "--packed=off", "--socket-mode=0660", "--run-id", "r"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := config{socketPath: "s", socketMode: 0o660, fd: -1, simDir: "d", engine: "e", fastCurves: true, qmpPath: "q",
		policy: vtpm.PolicyQMP, runName: "r", hostPCRs: hostdoor.ModeOff, layouts: vtpm.LayoutPlain, logLevel: "info", logFormat: "text"}
	if c != want {
		t.Errorf("parseArgs = %+v, want %+v", c, want)
	}
}

func TestParseArgsCard(t *testing.T) {
	c, err := parseArgs(strings.Fields("--fd 3 --coproc coprocd:/run/c --slot vm-a --slot-key k --reset-policy keep"), io.Discard)
	if err != nil || c.cardSocket != "/run/c" || c.slot != "vm-a" || c.slotKey != "k" || c.simDir != "" {
		t.Errorf("parseArgs = %+v, %v", c, err)
	}
}

func TestParseArgsEmulator(t *testing.T) {
	c, err := parseArgs(strings.Fields("--tpm-emulator-socket e --coproc sim:d --socket-mode 660 --run-id r"), io.Discard)
	if err != nil || !c.emulator || c.socketPath != "e" || c.socketMode != 0o660 || c.fd != -1 {
		t.Errorf("parseArgs = %+v, %v", c, err)
	}
	for _, more := range []string{
		"--socket-path=s", "--fd=3", "--qmp=q", "--reset-policy=keep", "--reset-policy=qmp", "--layout=both", "--packed=on",
	} {
		args := strings.Fields("--tpm-emulator-socket e --coproc sim:d " + more)
		name, _, _ := strings.Cut(more, "=")
		if _, err := parseArgs(args, io.Discard); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("parseArgs(%q) = %v, want an error that names %s", args, err, name)
		}
	}
}

func TestParseArgsFunction(t *testing.T) {
	const rest = " --slot vm-a --slot-key k --fd 3 --reset-policy keep"
	c, err := parseArgs(strings.Fields("--coproc pcie:0000:05:00.0"+rest), io.Discard)
	if err != nil || c.pciAddress != "0000:05:00.0" || c.vfioSocket != "" || c.cardSocket != "" || c.slot != "vm-a" || c.slotKey != "k" {
		t.Errorf("parseArgs = %+v, %v", c, err)
	}
	c, err = parseArgs(strings.Fields("--coproc vfio-user:/run/c"+rest), io.Discard)
	if err != nil || c.vfioSocket != "/run/c" || c.pciAddress != "" || c.cardSocket != "" {
		t.Errorf("parseArgs = %+v, %v", c, err)
	}
}

func TestParseArgsPolicy(t *testing.T) {
	tests := []struct {
		args string
		want vtpm.ResetPolicy // empty: refused
		says string
	}{
		{"--qmp q", vtpm.PolicyQMP, ""},
		{"--qmp q --reset-policy=qmp", vtpm.PolicyQMP, ""},
		{"--reset-policy=keep", vtpm.PolicyKeep, ""},
		{"--reset-policy=reset", vtpm.PolicyReset, ""},
		{"", "", "--reset-policy=keep"},
		{"--reset-policy=qmp", "", "--qmp PATH"},
		{"--qmp q --reset-policy=keep", "", "no use"},
		{"--reset-policy=sometimes", "", "sometimes"},
	}
	for _, tt := range tests {
		args := append(strings.Fields(tt.args), "--socket-path=s", "--coproc=sim:d")
		c, err := parseArgs(args, io.Discard)
		switch {
		case tt.want != "" && (err != nil || c.policy != tt.want):
			t.Errorf("parseArgs(%q) = policy %q, %v; want %q", tt.args, c.policy, err, tt.want)
		case tt.want == "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("parseArgs(%q) = %v, want an error that says %q", tt.args, err, tt.says)
		}
	}
}

func TestParseArgsRefuses(t *testing.T) {
	const good = "--coproc=sim:d --qmp=q "
	for _, args := range []string{
		good,
		good + "--socket-path=s --fd=3",
		good + "--fd=2",
		good + "--fd=x",
		good + "--socket-path=s --socket-mode=8",
		good + "--socket-path=s --socket-mode=1777",
		good + "--socket-path=s --layout=round",
		good + "--socket-path=s --packed=maybe",
		good + "--socket-path=s --fast-curves=maybe",
		good + "--socket-path=s --log-level=loud",
		good + "--socket-path=s --log-format=xml",
		good + "--socket-path=s extra",
		good + "--socket-path=s --no-such-flag",
		"--socket-path=s --qmp=q",
		"--socket-path=s --qmp=q --coproc=pcie:0000:05:00.0",
		"--socket-path=s --qmp=q --coproc=pcie: --slot=a --slot-key=k",
		"--socket-path=s --qmp=q --coproc=pcie:0000:05:00.0 --slot=a",
		"--socket-path=s --qmp=q --coproc=vfio-user: --slot=a --slot-key=k",
		"--socket-path=s --qmp=q --coproc=vfio-user:s --slot=a --slot-key=k --engine=e",
		"--socket-path=s --qmp=q --coproc=isa:s --slot=a --slot-key=k",
		"--socket-path=s --qmp=q --coproc=sim:",
		"--socket-path=s --qmp=q --coproc=sim:d --slot=a",
		"--socket-path=s --qmp=q --coproc=sim:d --slot-key=k",
		"--socket-path=s --qmp=q --coproc=coprocd: --slot=a --slot-key=k",
		"--socket-path=s --qmp=q --coproc=coprocd:c --slot=a",
		"--socket-path=s --qmp=q --coproc=coprocd:c --slot-key=k",
		"--socket-path=s --qmp=q --coproc=coprocd:c --slot=../a --slot-key=k",
		"--socket-path=s --qmp=q --coproc=coprocd:c --slot=a --slot-key=k --engine=e",
	} {
		if c, err := parseArgs(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("parseArgs(%q) = %+v, want an error", args, c)
		}
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var help bytes.Buffer
	if _, err := parseArgs([]string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("parseArgs(--help) = %v, want flag.ErrHelp", err)
	}
	for _, name := range []string{"socket-path", "fd", "tpm-emulator-socket", "socket-mode", "coproc", "slot", "slot-key", "engine", "qmp", "reset-policy",
		"run-id", "host-pcrs", "hostd", "fast-curves", "layout", "packed", "log-level", "log-format", "print-capabilities", "version", "help"} {
		if !strings.Contains(help.String(), "--"+name) {
			t.Errorf("--help does not mention --%s", name)
		}
	}
}

// QEMU's conventions: "Other options and arguments should be ignored".
func TestPrintCapabilitiesWinsOverEverything(t *testing.T) {
	c, err := parseArgs([]string{"--nonsense", "--print-capabilities", "x"}, io.Discard)
	if err != nil || !c.printCapabilities {
		t.Fatalf("parseArgs = %+v, %v", c, err)
	}
	var out bytes.Buffer
	if err := printCapabilities(&out); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("capabilities are not JSON: %v", err)
	}
	if got["type"] != "tpm" || got["config-size"] != float64(vtpm.ConfigSize) {
		t.Errorf("capabilities = %v", got)
	}
}
