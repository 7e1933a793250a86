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

// Real swtpm_ioctl and ours, asking a real swtpm one after the other, print the
// same and succeed and fail alike.
func TestLikeSwtpmIoctl(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1 to run real swtpm")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "c")
	server := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	for limit := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("swtpm made no socket")
		}
	}
	for _, line := range []string{
		"-e", "-c", "-g", "-b 0", "-b 3000", "-i", "-e", "-h data", "-e", "-r 1", "-r 4", "-C", "-v", "-l 2", "-l 9", "-b 4096",
		"--info 1", "--info 2", "--info 0x20", "--save permanent " + dir + "/p", "--save volatile " + dir + "/v",
		"--stop", "--load permanent " + dir + "/p", "--load volatile " + dir + "/v", "-i", "--zz", "--stop -i", "--save x y", "",
	} {
		args := append([]string{"--unix", socket}, strings.Fields(line)...)
		con, out := quietConsole()
		con.err = new(strings.Builder)
		code := realMain(t.Context(), con, append([]string{"swtpm_ioctl"}, args...))
		want, err := exec.Command("swtpm_ioctl", args...).Output()
		wantCode := 0
		if err != nil {
			wantCode = 1
		}
		if got := out.String(); got != string(want) || code != wantCode {
			t.Errorf("swtpm_ioctl %s: printed %q, exit code %d, want %q, %d", line, got, code, want, wantCode)
		}
	}
}
