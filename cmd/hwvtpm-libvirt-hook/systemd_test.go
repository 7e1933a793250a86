// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fakeSystemctl says of every unit that it is in this state.
func fakeSystemctl(t *testing.T, state string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\ncase $1 in show) echo " + state + " ;; is-active) test " + state + " = active ;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestRestartingUnitKeepsItsSlot: while the backend of one machine is started again,
// another machine does not get its slot.
func TestRestartingUnitKeepsItsSlot(t *testing.T) {
	for state, want := range map[string]bool{
		"active": true, "activating": true, "deactivating": true, "reloading": true, "inactive": false, "failed": false,
	} {
		fakeSystemctl(t, state)
		if got, err := (systemdUnit{config{slot: "vm1"}}).running(); err != nil || got != want {
			t.Errorf("%s: running = %t, %v, want %t", state, got, err, want)
		}
	}
}

func TestUnknownStateIsAnError(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := (systemdUnit{config{slot: "vm1"}}).running(); err == nil || !strings.Contains(err.Error(), "systemctl") {
		t.Errorf("without systemctl: %v", err)
	}
}

// TestUnitLetsARecoveryEnd: systemd would end the backend with it.
func TestUnitLetsARecoveryEnd(t *testing.T) {
	text, err := os.ReadFile("../vhost-user-vtpm/vhost-user-vtpm@.service")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^TimeoutStartSec=(\d+)$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("the unit has no TimeoutStartSec")
	}
	if limit, err := time.ParseDuration(string(found[1]) + "s"); err != nil || limit <= recoverTime {
		t.Errorf("TimeoutStartSec is %v, %v, want more than %v", limit, err, recoverTime)
	}
}
