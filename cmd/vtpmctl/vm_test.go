// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostdoor/hostdoortest"
)

// hostd is a host's daemon with two machines, of which one goes while it is asked.
func hostd(_ context.Context, op string, body json.RawMessage) (any, error) {
	switch op {
	case door.OpStatus:
		return door.Status{Host: "host-1", Card: "0123", VMs: 2, Problems: []string{"a\x1b[2J problem"},
			AIK: door.Certification{Ends: time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)}}, nil
	case door.OpVMs:
		return []string{"vm-a", "vm-gone"}, nil
	}
	var r door.VMRequest
	if err := door.Decode(body, &r); err != nil {
		return nil, err
	}
	if r.Name != "vm-a" {
		return nil, door.Errorf(door.CodeNotFound, "no machine is called that")
	}
	return door.VM{Name: "vm-a", Open: true, EKs: []door.EK{{Handle: 0x81010001, Certificate: []byte("no certificate")}}, AIK: "no PEM"}, nil
}

func TestHostAndMachines(t *testing.T) {
	r, path := newRig(t), hostdoortest.SocketPath(t)
	hostdoortest.Serve(t, path, hostd)
	for line, want := range map[string][]string{
		"host":         {"host-1", "0123", "2030-01-02 03:04:05", "a?[2J problem"},
		"vm list":      {"NAME", "vm-a  open   1"},
		"vm show vm-a": {"EK 0x81010001", "can't be read"},
	} {
		out := r.must(line + " --hostd " + path)
		for _, text := range want {
			if !strings.Contains(out, text) || strings.Contains(out, "vm-gone") {
				t.Errorf("%s does not say %q:\n%s", line, text, out)
			}
		}
	}
	if all := as[[]door.VM](t, r.must("--json vm list --hostd "+path)); len(all) != 1 || all[0].Name != "vm-a" {
		t.Errorf("vm list: %+v", all)
	}
	if s := as[door.Status](t, r.must("--json host --hostd "+path)); s.Host != "host-1" || len(s.Problems) != 1 {
		t.Errorf("host: %+v", s)
	}
	if vm := as[door.VM](t, r.must("--json vm show vm-a --hostd "+path)); len(vm.EKs) != 1 {
		t.Errorf("vm show: %+v", vm)
	}
}

func TestHostFailures(t *testing.T) {
	r, path := newRig(t), hostdoortest.SocketPath(t)
	if got := r.run("", "host --hostd "+path); got.code != cli.ExitFailure || !strings.Contains(got.err, "is vtpm-hostd running?") {
		t.Errorf("without a daemon: %+v", got)
	}
	hostdoortest.Serve(t, path, hostd)
	for line, code := range map[string]int{
		"vm show vm-b --hostd " + path: exitNotFound,
		"vm show":                      cli.ExitUsage,
		"vm list vm-a":                 cli.ExitUsage,
		"slot list --hostd " + path:    cli.ExitUsage,
	} {
		if got := r.run("", line); got.code != code {
			t.Errorf("%s: exit code %d, want %d: %s", line, got.code, code, got.err)
		}
	}
}
