// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/coproctest/programs"
)

// toolsRig is a coprocd with one slot, and the tools of the TCG's software stack
// that reach it through this program.
type toolsRig struct {
	t   *testing.T
	dir string
	env []string
}

func newToolsRig(t *testing.T) *toolsRig {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs tpm2-tools and tpm2-abrmd: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	dir, err := os.MkdirTemp("", "vtpmctl") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // workers run as users of their own
		t.Fatal(err)
	}
	r := &toolsRig{t: t, dir: dir, env: append(os.Environ(),
		"PATH="+dir+":"+os.Getenv("PATH"),
		"HWVTPM_SOCKET="+dir+"/s", "HWVTPM_KEYS="+dir+"/keys",
		"TPM2TOOLS_TCTI=cmd:vtpmctl raw --slot vm",
	)}
	if err := programs.Build(dir, "vtpmctl", "coprocd", "hwvtpm-engine"); err != nil {
		t.Fatal(err)
	}
	r.startDaemon()
	return r
}

func (r *toolsRig) startDaemon() {
	cmd := exec.Command(filepath.Join(r.dir, "coprocd"), "--store", r.dir+"/store", "--socket", r.dir+"/s")
	cmd.Stderr = r.t.Output()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			r.t.Errorf("coprocd: %v", err)
		}
	})
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(r.dir + "/s"); err == nil {
			return
		}
		if time.Since(begin) > time.Minute {
			r.t.Fatal("coprocd makes no socket")
		}
	}
}

// sh runs a script in an empty folder and gives what it printed.
func (r *toolsRig) sh(script string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = r.t.TempDir(), r.env
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return string(out)
}

// contains wants each of the words in text.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

// ownKey makes an attestation key below the slot's endorsement key, has it
// quote PCRs, and checks the quote as a verifier would.
const ownKey = `
tpm2_pcrreset 16
tpm2_pcrextend 16:sha256=$(printf measured | sha256sum | cut -d' ' -f1)
tpm2_createak -Q -C 0x81010001 -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pub
tpm2_quote -Q -c ak.ctx -l sha256:0,16 -q 0badcafe -m quote.msg -s quote.sig -o quote.pcrs
tpm2_checkquote -u ak.pub -m quote.msg -s quote.sig -f quote.pcrs -q 0badcafe
printf secret | tpm2_create -Q -C 0x81000001 -i - -u sealed.pub -r sealed.priv
tpm2_load -Q -C 0x81000001 -u sealed.pub -r sealed.priv -c sealed.ctx
tpm2_unseal -c sealed.ctx
`

// The state lasts from one tool to the next, each of which is a client of its
// own, and the furniture that a slot was made with is in place.
func TestTPM2Tools(t *testing.T) {
	r := newToolsRig(t)
	r.sh("vtpmctl slot create vm")
	contains(t, r.sh("tpm2_getcap handles-persistent"), "0x81000001", "0x81010001", "0x8101000A", "0x81010016")
	banks := r.sh("tpm2_getcap pcrs")
	contains(t, banks, "sha256: [ 0, 1, 2,", "sha384: [ 0, 1, 2,")
	contains(t, banks, "sha1: [ ]", "sha512: [ ]")
	contains(t, r.sh(ownKey), "secret")
	before := r.sh("tpm2_pcrread sha256:16")
	r.sh("vtpmctl slot list >/dev/null")
	if after := r.sh("tpm2_pcrread sha256:16"); after != before || strings.Contains(after, "0x00000000") {
		t.Errorf("PCR 16 was\n%sand is\n%s", before, after)
	}
	r.sh("tpm2_nvdefine -Q 0x1500001 -s 5 -a 'ownerread|ownerwrite'; printf hello | tpm2_nvwrite -Q 0x1500001 -C o -i -")
	contains(t, r.sh("tpm2_nvread 0x1500001 -C o"), "hello")
}

// The resource manager of user space has one client for many tools.
func TestResourceManager(t *testing.T) {
	r := newToolsRig(t)
	r.sh("vtpmctl slot create vm")
	script := `
tpm2-abrmd --session --allow-root --logger=stdout --tcti "$TPM2TOOLS_TCTI" &
manager=$!
export TPM2TOOLS_TCTI=tabrmd:bus_type=session
for i in $(seq 100); do tpm2_getrandom 8 >/dev/null 2>&1 && break; sleep 0.1; done
` + ownKey + `
vtpmctl slot list
kill $manager
wait $manager || true
`
	out := r.sh("dbus-run-session -- bash -euo pipefail -c '" + strings.ReplaceAll(script, "'", `'\''`) + "'")
	contains(t, out, "secret", "live")
}

// Who has another slot's key gets nothing.
func TestToolsWithAnotherKey(t *testing.T) {
	r := newToolsRig(t)
	r.sh("vtpmctl slot create vm; vtpmctl slot create other")
	out := r.sh(`
code=0; vtpmctl raw --slot vm --key "$HWVTPM_KEYS/other.key" </dev/null || code=$?
echo "exit code $code"
mv "$HWVTPM_KEYS/other.key" "$HWVTPM_KEYS/vm.key"
! tpm2_getrandom 8`)
	contains(t, out, "exit code 4")
}

// manyObjects makes more objects than a TPM holds at a time, one tool after the
// other, and seals a secret to a PCR.
const manyObjects = `
tpm2_pcrextend 10:sha256=$(printf measured | sha256sum | cut -d' ' -f1)
for i in 1 2 3 4 5; do tpm2_createprimary -Q -C o -G ecc -c primary.ctx; done
tpm2_createpolicy -Q --policy-pcr -l sha256:10 -L policy
printf secret | tpm2_create -Q -C primary.ctx -L policy -i - -u seal.pub -r seal.priv
tpm2_load -Q -C primary.ctx -u seal.pub -r seal.priv -c seal.ctx
tpm2_unseal -c seal.ctx -p pcr:sha256:10
echo; tpm2_getcap handles-transient
`

// Each tool leaves its objects in files and in the TPM; raw clears them out of
// the TPM, as a resource manager would, unless it is told not to.
func TestToolsLeaveNoObjects(t *testing.T) {
	r := newToolsRig(t)
	r.sh("vtpmctl slot create vm --keys none")
	out := r.sh(manyObjects)
	contains(t, out, "secret")
	if strings.Contains(out, "0x80") {
		t.Errorf("objects are left in the TPM:\n%s", out)
	}
	out = r.sh(`export TPM2TOOLS_TCTI="$TPM2TOOLS_TCTI --flush off"
tpm2_createprimary -Q -C o -G ecc -c primary.ctx; tpm2_getcap handles-transient`)
	contains(t, out, "0x80")
}
