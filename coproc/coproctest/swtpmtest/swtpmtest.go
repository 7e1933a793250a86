// SPDX-License-Identifier: Apache-2.0

// Package swtpmtest gives tests an swtpm in the place of a machine's hardware TPM:
// another make than the project's own, in a process of its own, and on demand as
// a manufacturer ships it. Tests that need no other reason to be of the root or the VM
// tier call Need first: only there are the programs.
package swtpmtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// hang is when a test gives up on a program.
const hang = time.Minute

// Need skips a test outside of the tier that has swtpm.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs swtpm: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
}

// Dir is a new folder with a name short enough for sockets, which is removed with
// the test.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Start runs swtpm on the TPM in dir/tpm, or on a new one if there is none,
// powered on and started. It returns when the socket, dir/s, can be connected to: raw
// TPM commands, one client at a time. The process ends with the test.
func Start(t testing.TB, dir string) (socket string) {
	t.Helper()
	socket = filepath.Join(dir, "s")
	state := filepath.Join(dir, "tpm")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state+",mode=0600",
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl",
		"--flags", "not-need-init,startup-clear", "--seccomp", "action=none", "--log", "file="+filepath.Join(dir, "log"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves nothing
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(hang); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return socket
		} else if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("swtpm does not come up: %v\n%s", err, log)
		}
	}
}

// Manufacture makes a TPM in dir/tpm as a manufacturer ships it: endorsement keys,
// and certificates for them in NV, by a certificate authority of its own. The
// folder that it returns has the authority's certificates.
func Manufacture(dir string) (maker string, err error) {
	ca, tpm, maker := filepath.Join(dir, "ca"), filepath.Join(dir, "tpm"), filepath.Join(dir, "maker")
	files := map[string]string{
		"localca.conf":    fmt.Sprintf("statedir = %s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/issuercert.pem\ncertserial = %[1]s/certserial\n", ca),
		"localca.options": "--platform-manufacturer Maker\n--platform-version 1.0\n--platform-model Board\n",
		"setup.conf": fmt.Sprintf("create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = %s/localca.conf\n"+
			"create_certs_tool_options = %[1]s/localca.options\nactive_pcr_banks = sha256\n", dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	if err := errors.Join(os.Mkdir(ca, 0o700), os.Mkdir(maker, 0o700), os.MkdirAll(tpm, 0o700)); err != nil {
		return "", err
	}
	out, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", tpm, "--config", filepath.Join(dir, "setup.conf"),
		"--createek", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--vmid", "host-1").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("swtpm_setup: %w\n%s", err, out)
	}
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		if err := os.Rename(filepath.Join(ca, name), filepath.Join(maker, name)); err != nil {
			return "", err
		}
	}
	return maker, nil
}
