// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
)

func parse(args ...string) (config, error) {
	return parseArgs(append([]string{"--store", "/s", "--socket", "/r"}, args...), &bytes.Buffer{})
}

func TestDefaults(t *testing.T) {
	c, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	if c.socketMode != 0o660 || c.maxLive != 64 || c.spares != 2 || c.parkAfter != time.Minute || !c.fastCurves || !filepath.IsAbs(c.engine) {
		t.Errorf("defaults %+v", c)
	}
	if root := os.Geteuid() == 0; (c.workerUID == defaultWorkerUID) != root || (c.workerUID == -1) == root {
		t.Errorf("worker uid %d, root %t", c.workerUID, root)
	}
}

func TestFlags(t *testing.T) {
	c, err := parse("--host-tpm", "device:/dev/tpmrm0", "--pcrs", "sha384:7,0", "--nv-index", "0x01801a76",
		"--admin-uid", "1001", "--admin-uid", "root", "--admin-gid", "50", "--socket-mode", "0600",
		"--fast-curves", "off", "--park-after", "0")
	if err != nil {
		t.Fatal(err)
	}
	if c.pcrs.Bank != tpm2.TPMAlgSHA384 || !slices.Equal(c.pcrs.PCRs, []uint{7, 0}) || c.index != 0x01801a76 {
		t.Errorf("host TPM: %v, index %#x", c.pcrs, c.index)
	}
	if !slices.Equal(c.policy.UIDs, []uint32{1001, 0}) || !slices.Equal(c.policy.GIDs, []uint32{50}) {
		t.Errorf("policy %+v", c.policy)
	}
	if c.socketMode != 0o600 || c.fastCurves || c.parkAfter != 0 {
		t.Errorf("config %+v", c)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string // in the message
	}{
		{[]string{"--store", ""}, "--store"},
		{[]string{"--socket", ""}, "--socket"},
		{[]string{"--socket-mode", "rw"}, "rw"},
		{[]string{"--socket-mode", "01777"}, "01777"},
		{[]string{"--key-file", "k", "--host-tpm", "device:/dev/tpmrm0"}, "either"},
		{[]string{"--host-tpm", "/dev/tpmrm0"}, "/dev/tpmrm0"},
		{[]string{"--pcrs", "sha256:7"}, "--host-tpm"},
		{[]string{"--key-backup", "k"}, "--host-tpm"},
		{[]string{"--host-tpm", "swtpm:/t", "--reseal"}, "--key-backup"},
		{[]string{"--host-tpm", "swtpm:/t", "--pcrs", "sha1:7"}, "neither"},
		{[]string{"--host-tpm", "swtpm:/t", "--pcrs", "sha256:24"}, "24"},
		{[]string{"--host-tpm", "swtpm:/t", "--pcrs", "sha256:"}, "PCR"},
		{[]string{"--host-tpm", "swtpm:/t", "--nv-index", "0x81000001"}, "0x81000001"},
		{[]string{"--max-live", "0"}, "--max-live"},
		{[]string{"--spares", "65"}, "--spares"},
		{[]string{"--park-after", "-1s"}, "--park-after"},
		{[]string{"--anchor-interval", "0"}, "--anchor-interval"},
		{[]string{"--admin-uid", "no such user"}, "no such user"},
		{[]string{"--admin-gid", "no such group"}, "no such group"},
		{[]string{"--fast-curves", "yes"}, "yes"},
		{[]string{"--log-level", "loud"}, "loud"},
		{[]string{"--log-format", "xml"}, "xml"},
	} {
		if _, err := parse(tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want one with %q", tc.args, err, tc.want)
		}
	}
}

// TestHelpNamesAllFlags: what can be given is told.
func TestHelpNamesAllFlags(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseArgs([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	new(config).flags(&options{}).VisitAll(func(f *flag.Flag) {
		if !strings.Contains(out.String(), "--"+f.Name) {
			t.Errorf("the help does not name --%s", f.Name)
		}
	})
}
