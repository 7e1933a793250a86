// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/attest"
)

// What was made once for the tests of the verifier.
const (
	goldenDir   = "../../vtpm/attest/testdata"
	goldenNonce = "a nonce of the verifier, 32 long"
	goldenTime  = "2026-11-01T12:00:00Z"
)

// goldenQuestion is the line that judges the golden evidence.
func goldenQuestion(command string) string {
	return command + " --evidence " + goldenDir + "/evidence.json --roots " + goldenDir + "/root.pem --at " + goldenTime +
		" --nonce " + hex.EncodeToString([]byte(goldenNonce))
}

func TestVerify(t *testing.T) {
	r := newRig(t)
	out := r.must(goldenQuestion("verify") + " --crl " + goldenDir + "/root.crl --crl " + goldenDir + "/attestation.crl")
	for _, want := range []string{"held", "binding.card", "pcrs.equal", "revocation   "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	judged := as[attest.Result](t, r.must(goldenQuestion("verify")+" --json"))
	if !judged.OK || judged.Machine != "vm-1" || judged.Get(attest.ClaimRevocation).State != attest.NotClaimed {
		t.Errorf("judged %+v", judged)
	}
	text, err := os.ReadFile(goldenDir + "/evidence.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.run(string(text), strings.Replace(goldenQuestion("verify"), goldenDir+"/evidence.json", "-", 1)); got.code != cli.ExitOK {
		t.Errorf("evidence from stdin: exit code %d\n%s", got.code, got.err)
	}
}

func TestVerifyFails(t *testing.T) {
	r := newRig(t)
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"version":1,"vm":{"log":true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	good := goldenQuestion("verify")
	for name, tc := range map[string]struct {
		line, says string
		code       int
	}{
		"other nonce":        {strings.Replace(good, "--nonce 61", "--nonce 62", 1), "failed", cli.ExitFailure},
		"later":              {strings.Replace(good, "2026-11", "2027-11", 1), "missing", cli.ExitFailure},
		"a list is missing":  {good + " --crl " + goldenDir + "/root.crl", "failed       revocation", cli.ExitFailure},
		"policy asks more":   {good + " --policy " + policy, "missing      vm.log", cli.ExitFailure},
		"policy is evidence": {good + " --policy " + goldenDir + "/evidence.json", "", cli.ExitFailure},
		"root is evidence":   {good + " --roots " + goldenDir + "/evidence.json", "", cli.ExitFailure},
		"list is evidence":   {good + " --crl " + goldenDir + "/evidence.json", "", cli.ExitFailure},
		"evidence is a root": {strings.Replace(good, "evidence.json", "root.pem", 1), "", cli.ExitFailure},
		"no such file":       {strings.Replace(good, "evidence.json", "none", 1), "", cli.ExitFailure},
		"short nonce":        {good + " --nonce 00", "", cli.ExitUsage},
		"odd nonce":          {good + " --nonce 0", "", cli.ExitUsage},
		"time of no form":    {good + " --at noon", "", cli.ExitUsage},
		"no nonce":           {"verify --evidence x --roots y", "", cli.ExitUsage},
		"no roots":           {"verify --evidence x --nonce 00112233445566778899aabbccddeeff", "", cli.ExitUsage},
	} {
		got := r.run("", tc.line)
		if got.code != tc.code || got.err == "" || !strings.Contains(got.out, tc.says) {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, got.code, tc.code, got.out, got.err)
		}
	}
}

func TestPolicyLearn(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "policy.json")
	r.must(goldenQuestion("policy learn") + " --out " + file)
	out := r.must(goldenQuestion("verify") + " --policy " + file)
	if !strings.Contains(out, "held         policy.host") {
		t.Errorf("judged\n%s", out)
	}
	if p := as[attest.Policy](t, r.must(goldenQuestion("policy learn")+" --policy "+file)); len(p.Machines) != 1 || !p.Host.SecureBoot {
		t.Errorf("learned %+v", p)
	}
	late := filepath.Join(t.TempDir(), "late.json")
	got := r.run("", strings.Replace(goldenQuestion("policy learn"), "2026-11", "2027-11", 1)+" --out "+late)
	if _, err := os.Stat(late); got.code != cli.ExitFailure || !os.IsNotExist(err) {
		t.Errorf("learned from evidence that does not hold: exit code %d, %v\n%s", got.code, err, got.out)
	}
}

// Words of evidence reach a terminal as letters only.
func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb\r\nc\u202ed"); got != "a?[2Jb??c?d" {
		t.Errorf("printable = %q", got)
	}
}
