// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tools is the real card with what Debian has for TPMs on top of it.
type tools struct {
	t    *testing.T
	dir  string
	env  []string
	tcti string
}

// newTools builds the programs and starts a card with the slot vm.
func newTools(t *testing.T) *tools {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") == "" {
		t.Skip("uses Debian's tpm2-tools: set HWVTPM_TEST_ROOT=1 (make test-root)")
	}
	dir := t.TempDir()
	for name, cgo := range map[string]string{"coprocd": "0", "vtpmctl": "0", "hwvtpm-engine": "1"} {
		cmd := exec.Command("go", "build", "-o", dir+"/", "hwvtpm/cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	socket := filepath.Join(dir, "s")
	daemon := exec.Command(filepath.Join(dir, "coprocd"), "--store", filepath.Join(dir, "store"), "--socket", socket,
		"--park-after", "50ms", "--worker-uid", "-1")
	log := &strings.Builder{}
	daemon.Stderr = log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		daemon.Process.Signal(os.Interrupt)
		daemon.Wait()
		if t.Failed() {
			t.Logf("log of coprocd:\n%s", log)
		}
	})
	x := &tools{t: t, dir: dir, tcti: "cmd:" + filepath.Join(dir, "vtpmctl") + " raw --slot vm"}
	x.env = append(os.Environ(), "HWVTPM_SOCKET="+socket, "HWVTPM_KEYS="+filepath.Join(dir, "keys"), "TPM2TOOLS_TCTI="+x.tcti)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("coprocd does not listen")
		}
	}
	x.run(filepath.Join(dir, "vtpmctl") + " slot create vm --keys p256,srk")
	return x
}

// run runs a script in the card's folder and gives its output.
func (x *tools) run(script string) string {
	x.t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir, cmd.Env = x.dir, x.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// sealing seals a secret to a PCR, signs and quotes: more objects than a TPM
// holds at a time, over many processes.
const sealing = `
	tpm2_pcrextend 10:sha256=` + "0707070707070707070707070707070707070707070707070707070707070707" + `
	for i in 1 2 3 4 5; do tpm2_createprimary -Q -C o -G ecc -c primary.ctx; done
	tpm2_create -Q -C primary.ctx -G ecc -u key.pub -r key.priv
	tpm2_load -Q -C primary.ctx -u key.pub -r key.priv -c key.ctx
	echo message > message
	tpm2_sign -Q -c key.ctx -g sha256 -o sig message
	tpm2_verifysignature -Q -c key.ctx -g sha256 -s sig -m message
	tpm2_createpolicy -Q --policy-pcr -l sha256:10 -L policy
	echo secret | tpm2_create -Q -C primary.ctx -L policy -i - -u seal.pub -r seal.priv
	tpm2_load -Q -C primary.ctx -u seal.pub -r seal.priv -c seal.ctx
	tpm2_unseal -c seal.ctx -p pcr:sha256:10
	tpm2_nvdefine -Q -C o -s 32 0x1500010
	tpm2_nvwrite -Q -C o -i message 0x1500010
	tpm2_getcap handles-persistent
	tpm2_quote -Q -c key.ctx -l sha256:10 -m quote -s quotesig
	tpm2_getcap handles-transient
`

func checkSealing(t *testing.T, out string) {
	t.Helper()
	for _, want := range []string{"secret\n", "0x8101000A", "0x81000001"} {
		if !strings.Contains(out, want) {
			t.Errorf("output has no %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "- 0x80") {
		t.Errorf("transient objects are left:\n%s", out)
	}
}

// TestTools: tpm2-tools on a slot, each tool a vtpmctl of its own, while the card
// puts the TPM to rest in between.
func TestTools(t *testing.T) {
	x := newTools(t)
	checkSealing(t, x.run(sealing))
	if out := x.run("./vtpmctl slot show vm"); !strings.Contains(out, "closed") {
		t.Errorf("the slot is left open:\n%s", out)
	}
}

// TestResourceManager: the same behind tpm2-abrmd, which has one vtpmctl.
func TestResourceManager(t *testing.T) {
	x := newTools(t)
	script := `
	tpm2-abrmd --session --allow-root --tcti="$TPM2TOOLS_TCTI" &
	manager=$!
	trap 'kill $manager; wait $manager || true' EXIT
	export TPM2TOOLS_TCTI=tabrmd:bus_type=session
	for i in $(seq 100); do if tpm2_getrandom -Q 1 2>/dev/null; then break; fi; sleep 0.1; done
	` + sealing
	if err := os.WriteFile(filepath.Join(x.dir, "script"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	checkSealing(t, x.run("exec dbus-run-session -- sh -eu script"))
}
